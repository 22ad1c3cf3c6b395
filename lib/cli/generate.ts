// gradus generate: continues a text with a model of `gradus train`.

import { CharTokenizer } from '../data/tokenizer'
import { type DeviceName, device } from '../device'
import { ArgumentError, describeValue } from '../errors'
import { loadCheckpoint } from '../io/checkpoint'
import { GPT } from '../models/gpt'
import { readRun } from '../train/languageModel'

/** Options of the command, as commander reads them. */
export interface GenerateCommandOptions {
  prompt?: string
  tokens: number
  temperature: number
  topK?: number
  topP?: number
  seed: number
  device?: string
  json?: boolean
}

/** What is continued: the prompt, or else the first of these that the model knows. */
function readPrompt(prompt: string | undefined, tokenizer: CharTokenizer): string {
  if (prompt === undefined || prompt === '') {
    return ['\n', ' '].find((each) => tokenizer.tokenToId(each) !== undefined) ?? tokenizer.idToToken(0)!
  }
  const stranger = [...prompt].find((each) => tokenizer.tokenToId(each) === undefined)
  if (stranger === undefined) return prompt
  const known = Array.from({ length: tokenizer.vocabSize }, (_, id) => tokenizer.idToToken(id)).join('')
  throw new ArgumentError('generate', {
    problem: 'the text that the model learnt has no such character',
    got: `${describeValue(stranger)} in --prompt`,
    expected: `characters out of ${JSON.stringify(known)}`,
  })
}

/** Runs the command: text goes to stdout as it comes. */
export async function generate(run: string, options: GenerateCommandOptions): Promise<void> {
  const place = options.device === undefined ? undefined : device(options.device as DeviceName)
  const { path, progress } = await readRun('generate', run)
  const { config, characters } = progress
  const { nLayer, nHead, nEmbd, blockSize } = config
  const tokenizer = new CharTokenizer([...characters])
  const model = new GPT({ vocabSize: tokenizer.vocabSize, nLayer, nHead, nEmbd, blockSize, dropout: 0 })
  await loadCheckpoint(path, { model })
  model.eval()
  if (place !== undefined) model.to(place)
  const { tokens, temperature, topK, topP, seed } = options
  const prompt = readPrompt(options.prompt, tokenizer)
  const sampling = { maxNewTokens: tokens, temperature, topK, topP, seed }
  let text = ''
  if (!options.json) process.stdout.write(prompt)
  for await (const [token] of model.stream([...tokenizer.encode(prompt)].slice(-blockSize), sampling)) {
    const piece = tokenizer.decode([token!])
    text += piece
    if (!options.json) process.stdout.write(piece)
  }
  process.stdout.write(options.json ? `${JSON.stringify({ prompt, text })}\n` : '\n')
}
