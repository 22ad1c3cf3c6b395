import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { DeviceError, FileError } from '../../lib/errors'
import { loadFile } from '../../lib/io/safetensors'
import { memory } from '../../lib/tensor/memoryAccount'
import { type LanguageModelConfig, type LanguageModelOptions, trainLanguageModel } from '../../lib/train/languageModel'

const text = readFileSync(join(__dirname, '../fixtures/text.txt'), 'utf8').slice(0, 60_000)

const config: LanguageModelConfig = {
  title: 'a test',
  seed: 7,
  nLayer: 2,
  nHead: 2,
  nEmbd: 32,
  blockSize: 32,
  batchSize: 16,
  learningRate: 4e-3,
  dropout: 0.1,
}

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gradus-train-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const train = (out: string, options: Partial<LanguageModelOptions> = {}) =>
  trainLanguageModel(config, { text, out: join(folder, out), steps: 40, ...options })

async function bits(checkpoint: string): Promise<Record<string, string>> {
  const weights = await loadFile(join(checkpoint, 'model.safetensors'))
  const entries = Object.entries(weights).map(async ([name, each]) => [
    name,
    Buffer.from((await each.data()).buffer).toString('base64'),
  ])
  return Object.fromEntries(await Promise.all(entries))
}

test('trainLanguageModel: learns more than how frequent each character is', async () => {
  const result = await train('learns', { steps: 250 })
  expect(result.steps).toBe(250)
  expect(result.unigramEntropy).toBeGreaterThan(2.8)
  expect(result.unigramEntropy).toBeLessThan(3.3)
  expect(result.valLoss).toBeLessThan(result.unigramEntropy - 0.4)
  expect(result.trainLoss).toBeLessThan(result.unigramEntropy - 0.4)
  expect(result.sample.length).toBeGreaterThan(50)
  expect(readdirSync(join(folder, 'learns')).sort()).toEqual(['loss.svg', 'report.html', 'step-00000250'])
})

test('trainLanguageModel: the same seed gives the same bits', async () => {
  const first = await train('first')
  const second = await train('second')
  expect(await bits(second.checkpoint)).toEqual(await bits(first.checkpoint))
  expect(second.sample).toBe(first.sample)
  expect(second.valLoss).toBe(first.valLoss)
})

test('trainLanguageModel: a run that is stopped and resumed gives the bits of one that was not', async () => {
  const whole = await train('whole')
  const controller = new AbortController()
  const stopped = await train('parts', {
    signal: controller.signal,
    observer: { step: ({ step }) => step === 17 && controller.abort() },
  })
  expect(stopped.steps).toBe(17)
  const resumed = await train('parts', { resume: true })
  expect(resumed.steps).toBe(40)
  expect(await bits(resumed.checkpoint)).toEqual(await bits(whole.checkpoint))
  expect(resumed.valLoss).toBe(whole.valLoss)
})

test('trainLanguageModel: minutes end a run, and the rate comes down with them', async () => {
  const rates: number[] = []
  const observer = { step: ({ learningRate }: { learningRate: number }) => rates.push(learningRate) > 0 }
  const result = await train('timed', { steps: undefined, minutes: 0.1, observer } as never)
  expect(result.steps).toBe(rates.length)
  expect(rates.at(-1)!).toBeLessThan(0.5 * Math.max(...rates))
})

test('trainLanguageModel: refuses to resume with another text', async () => {
  await train('run', { steps: 5 })
  await expect(train('run', { text: text.replaceAll('the', 'eht'), resume: true })).rejects.toThrow(FileError)
  // other characters, too, so that the model would have another shape
  await expect(train('run', { text: `${text}\u2603`, resume: true })).rejects.toThrow('made with another text')
})

test('trainLanguageModel: trains on another device to the same bits, and resumes on a third', async () => {
  const [here, there] = [await train('here', { steps: 6 }), await train('there', { steps: 6, device: 'cpu:1' })]
  expect(await bits(there.checkpoint)).toEqual(await bits(here.checkpoint))
  expect(readFileSync(there.report, 'utf8')).toContain('cpu:1')
  const used = memory.maxAllocated('cpu:2')
  const resumed = await train('there', { steps: 8, resume: true, device: 'cpu:2' })
  expect(resumed.steps).toBe(8)
  expect(readFileSync(resumed.report, 'utf8')).toMatch(/cpu:2/)
  expect(readFileSync(resumed.report, 'utf8')).not.toMatch(/cpu:1/)
  expect(memory.maxAllocated('cpu:2')).toBeGreaterThan(used)
  await expect(train('nowhere', { device: 'gpu' as never })).rejects.toThrow(DeviceError)
})

test('trainLanguageModel: refuses to resume with another configuration', async () => {
  await train('other', { steps: 5 })
  const resumed = trainLanguageModel({ ...config, nLayer: 3 }, { text, out: join(folder, 'other'), resume: true })
  await expect(resumed).rejects.toThrow('train: the run was begun with another nLayer: got 3, expected 2')
})

test('trainLanguageModel: takes one step at least, and speaks of a checkpoint only when there is one', async () => {
  const short = await train('short', { steps: undefined, minutes: 1e-9 } as never)
  expect(short.steps).toBe(1)
  const far = { ...config, learningRate: 1e30 }
  const error = await trainLanguageModel(far, { text, out: join(folder, 'far'), steps: 40 }).catch((error) => error)
  expect(error.message).toMatch(/the loss is not a finite number any more: .*; lower the learning rate\.$/)
})

test('trainLanguageModel: does not begin a run among the checkpoints of another', async () => {
  const { checkpoint } = await train('taken', { steps: 5 })
  const again = train('taken', { steps: 3 })
  await expect(again).rejects.toThrow(FileError)
  await expect(again).rejects.toThrow(
    `train: the output folder holds checkpoints of another run: got ${checkpoint}, expected a folder without any; ` +
      'give another one with --out, continue that run with --resume, or delete it.',
  )
  expect(readdirSync(checkpoint)).toContain('checkpoint.json')
})

test('trainLanguageModel: says how long a text must be', async () => {
  await expect(train('short', { text: 'Call me Ishmael.' })).rejects.toThrow(
    'train: the text is too short: got 16 characters, expected at least 320 for a context of 32; give a longer text or a smaller context.',
  )
})
