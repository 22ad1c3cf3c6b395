// Whole models against transformers: outputs, every gradient, ten AdamW steps, and a training run of 200 steps.

import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { io, models, nn, optim, type Tensor } from '../../lib/index'
import { expectClose, type GoldenCase, goldenCases, goldenTensors } from '../support/golden'

const folder = join(__dirname, '..', 'fixtures')

interface ModelCase extends Omit<GoldenCase, 'tolerance'> {
  model_dir: string
  params: { kind: 'clm' | 'mlm' | 'cls'; model_parameters: number }
  tolerance: {
    rtol: number
    atol: number
    loss_rtol: number
    grad_rtol: number
    grad_atol: number
    train10_loss_rtol: number
  }
}

type Model = models.GPT | models.BERT

const load = (each: ModelCase): Promise<Model> =>
  each.params.kind === 'clm'
    ? models.GPT.fromPretrained(join(folder, each.model_dir))
    : models.BERT.fromPretrained(join(folder, each.model_dir))

const run = (model: Model, batch: models.BERTBatch & { labels: Tensor }): models.BERTOutput<typeof batch> =>
  (model as models.BERT).forward(batch)

describe('golden models', () => {
  for (const found of goldenCases('models', /./)) {
    const each = found as unknown as ModelCase
    const { tolerance } = each

    it(`${each.name}: outputs and gradients`, async () => {
      const stored = await goldenTensors(each.file)
      const names = each.outputs as Record<string, string>
      const read = (name: string): Tensor => stored[name]!
      const batch = {
        inputIds: read('in/input_ids'),
        attentionMask: read('in/attention_mask'),
        labels: read('in/labels'),
        tokenTypeIds: stored['in/token_type_ids'] ?? null,
      }
      const model = (await load(each)).train()
      expect(model.numParameters()).toBe(each.params.model_parameters)
      // the fused attention first, the one that shows its probabilities after it: both have to agree
      for (const visible of [false, true]) {
        model.zeroGrad()
        const out = run(model, { ...batch, outputAttentions: visible, outputHiddenStates: visible })
        await expectClose(out.logits, read(names.logits!), tolerance)
        await expectClose(out.loss, read(names.loss!), { rtol: tolerance.loss_rtol, atol: 0 })
        if (visible) {
          for (const [key, list] of [
            ['hidden_states', out.hiddenStates!],
            ['attentions', out.attentions!],
          ] as const) {
            expect(list.length).toBe(Object.keys(names).filter((name) => name.startsWith(key)).length)
            for (const [i, tensor] of list.entries()) {
              await expectClose(tensor, read(names[`${key}.${i}`]!), tolerance)
            }
          }
        }
        out.loss.backward()
        const grads = model.gradDict()
        expect(Object.keys(grads).sort()).toEqual(Object.keys(each.grads).sort())
        for (const [name, key] of Object.entries(each.grads)) {
          await expectClose(grads[name]!, read(key), { rtol: tolerance.grad_rtol, atol: tolerance.grad_atol })
        }
      }
    })

    it(`${each.name}: ten training steps`, async () => {
      const stored = await goldenTensors(each.file)
      const names = each.outputs as Record<string, string>
      const batch = {
        inputIds: stored['in/input_ids']!,
        attentionMask: stored['in/attention_mask']!,
        labels: stored['in/labels']!,
        tokenTypeIds: stored['in/token_type_ids'] ?? null,
      }
      const model = (await load(each)).train()
      const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3, weightDecay: 0.01 })
      const losses: number[] = []
      const norms: number[] = []
      for (let step = 0; step < 10; step++) {
        optimizer.zeroGrad()
        const { loss } = run(model, batch)
        loss.backward()
        norms.push(await nn.utils.clipGradNorm_(model.parameters(), 1).item())
        optimizer.step()
        losses.push(await loss.item())
      }
      losses.push(await run(model, batch).loss.item())
      const close = { rtol: tolerance.train10_loss_rtol, atol: 0 }
      const float64 = (name: string): Promise<ArrayLike<number>> => stored[names[name]!]!.data() as never
      compare(losses, await float64('train10_loss'), close)
      compare(norms, await float64('train10_grad_norm'), { rtol: 1e-3, atol: 0 })
      const state = model.stateDict()
      for (const [name, key] of Object.entries(names)) {
        if (!name.startsWith('train10_param/')) continue
        await expectClose(state[name.slice('train10_param/'.length)]!, stored[key]!, { rtol: 1e-3, atol: 2e-5 })
      }
    })
  }
})

function compare(got: readonly number[], expected: ArrayLike<number>, { rtol, atol }: { rtol: number; atol: number }) {
  expect(got.length).toBe(expected.length)
  got.forEach((value, i) => {
    const reference = expected[i]!
    const close = Math.abs(value - reference) <= atol + rtol * Math.abs(reference)
    if (!close) expect.fail(`${i}: got ${value}, expected ${reference}`)
  })
}

describe('golden training', () => {
  it('training_gpt2_200: follows the loss curve of 200 accumulated, clipped and scheduled steps', async () => {
    const [found] = goldenCases('training', /training_gpt2_200/)
    const { params, tolerance } = found as unknown as {
      params: Record<string, number>
      tolerance: { loss_rtol_first_10: number; loss_atol_all: number; grad_norm_rtol_first_10: number }
    }
    const stored = await io.loadFile(join(folder, 'training', 'curve.safetensors'))
    const curve = async (name: string): Promise<number[]> => Array.from(await stored[name]!.data(), Number)
    const model = (await models.GPT.fromPretrained(join(folder, 'training'))).train()
    const matrices = model.parameters().filter((p) => p.ndim >= 2)
    const vectors = model.parameters().filter((p) => p.ndim < 2)
    const optimizer = new optim.AdamW(
      [
        { params: matrices, weightDecay: params.weight_decay_2d! },
        { params: vectors, weightDecay: params.weight_decay_1d! },
      ],
      { lr: params.lr!, betas: [0.9, 0.95], eps: params.eps! },
    )
    const { warmup, steps, accumulation, K } = params as Record<string, number>
    const schedule = new optim.LambdaLR(optimizer, (s) =>
      s < warmup! ? s / Math.max(1, warmup!) : Math.max(0, (steps! - s) / Math.max(1, steps! - warmup!)),
    )
    const [lossCurve, normCurve, rates] = [await curve('loss'), await curve('grad_norm'), await curve('lr')]
    let micro = 0
    for (let step = 0; step < steps!; step++) {
      optimizer.zeroGrad()
      let total = 0
      for (let a = 0; a < accumulation!; a++, micro++) {
        const inputIds = stored.batches!.select(0, micro % K!)
        const labels = stored.labels!.select(0, micro % K!)
        const loss = model.forward({ inputIds, labels, returnLogits: step % 2 === 0 }).loss.mul(1 / accumulation!)
        loss.backward()
        total += await loss.item()
      }
      const norm = await nn.utils.clipGradNorm_(model.parameters(), params.clip!).item()
      expect(optimizer.paramGroups[0]!.lr).toBeCloseTo(rates[step]!, 12)
      optimizer.step()
      schedule.step()
      const error = Math.abs(total - lossCurve[step]!)
      expect(error, `loss of step ${step}`).toBeLessThanOrEqual(
        step < 10 ? tolerance.loss_rtol_first_10 * lossCurve[step]! : tolerance.loss_atol_all,
      )
      if (step < 10) {
        expect(Math.abs(norm - normCurve[step]!) / normCurve[step]!).toBeLessThanOrEqual(
          tolerance.grad_norm_rtol_first_10,
        )
      }
    }
  })
})
