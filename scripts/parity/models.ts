// Whole models in folders of Hugging Face's format: one batch, ten training steps, greedy decoding, a training curve.

import { join } from 'node:path'
import { amp, models, nn, optim, type Tensor, tensor } from 'gradus'
import { type Case, compare, type Fixtures, Mismatch } from './fixtures'

interface Output {
  loss?: Tensor
  logits?: Tensor
  attentions?: Tensor[]
  hiddenStates?: Tensor[]
}

interface Model extends nn.Module {
  forward(batch: Record<string, Tensor | boolean>): Output
}

const loaders: Record<string, (folder: string) => Promise<nn.Module>> = {
  GPT2LMHeadModel: (folder) => models.GPT.fromPretrained(folder),
  BertForMaskedLM: (folder) => models.BERT.fromPretrained(folder),
  BertForSequenceClassification: (folder) => models.BERT.fromPretrained(folder),
}

const training = 'GPT2LMHeadModel + AdamW'

/** Whether the table has the case's model. */
export function knowsModel(op: string): boolean {
  return op in loaders || op === training
}

const inputNames: Record<string, string> = {
  input_ids: 'inputIds',
  attention_mask: 'attentionMask',
  token_type_ids: 'tokenTypeIds',
  labels: 'labels',
}

/** The tensors of a case: by the manifest's own names. */
class Stored {
  constructor(
    private readonly each: Case,
    private readonly tensors: Record<string, Tensor>,
  ) {}

  input(name: string): Tensor | undefined {
    return this.tensors[this.each.inputs[name]]
  }

  output(name: string): Tensor {
    const found = this.tensors[(this.each.outputs as Record<string, string>)[name]!]
    if (found === undefined) throw new Mismatch(`the fixtures lack output ${name}`)
    return found
  }

  has(name: string): boolean {
    return name in this.each.outputs
  }
}

const rate = (tolerance: Record<string, number>, prefix: string): { rtol: number; atol: number } => ({
  rtol: tolerance[`${prefix}_rtol`] ?? 0,
  atol: tolerance[`${prefix}_atol`] ?? 0,
})

/** Ten AdamW steps on one batch; the loss before each, and after the last. */
async function tenSteps(model: Model, batch: Record<string, Tensor>, stored: Stored, each: Case): Promise<number> {
  const optimizer = new optim.AdamW(model.parameters(), { lr: 1e-3, weightDecay: 0.01 })
  const losses: number[] = []
  const norms: number[] = []
  for (let step = 0; step < 10; step++) {
    optimizer.zeroGrad()
    const { loss } = model.forward(batch)
    loss!.backward()
    norms.push(await nn.utils.clipGradNorm_(model.parameters(), 1).item())
    optimizer.step()
    losses.push(await loss!.item())
  }
  losses.push(await model.forward(batch).loss!.item())
  const tolerance = rate(each.tolerance, 'train10_loss')
  const float64 = { dtype: 'float64' } as const
  await compare('losses of ten steps', tensor(losses, float64), stored.output('train10_loss'), tolerance)
  const normTolerance = { rtol: each.tolerance.grad_rtol ?? 1e-3 }
  await compare('norms of ten steps', tensor(norms, float64), stored.output('train10_grad_norm'), normTolerance)
  const state = model.stateDict()
  let largest = 0
  for (const name of Object.keys(each.outputs).filter((key) => key.startsWith('train10_param/'))) {
    const parameter = state[name.slice('train10_param/'.length)]!
    largest = Math.max(largest, await compare(name, parameter, stored.output(name), rate(each.tolerance, 'grad')))
  }
  return largest
}

async function greedy(model: models.GPT, stored: Stored): Promise<void> {
  const options = { maxNewTokens: 12, eosTokenId: null }
  const prompt = stored.input('generate_prompt')!
  await compare('generate', await model.generate(prompt, options), stored.output('generate'), {})
  const padded = stored.input('generate_leftpad_prompt')!
  const attentionMask = stored.input('generate_leftpad_mask')!
  const continued = await model.generate(padded, { ...options, attentionMask })
  await compare('generate with left padding', continued, stored.output('generate_leftpad'), {})
}

async function oneBatch(each: Case, fixtures: Fixtures): Promise<number> {
  const tensors = await fixtures.tensors(each.file)
  const stored = new Stored(each, tensors)
  const folder = join(fixtures.folder, each.model_dir!)
  const model = (await loaders[each.op]!(folder)) as Model
  model.train()
  const batch: Record<string, Tensor> = {}
  for (const [name, ours] of Object.entries(inputNames)) {
    const input = stored.input(name)
    if (input !== undefined) batch[ours] = input
  }
  const { loss, logits, attentions, hiddenStates } = model.forward({
    ...batch,
    outputAttentions: true,
    outputHiddenStates: true,
  })
  await compare('loss', loss!, stored.output('loss'), rate(each.tolerance, 'loss'))
  let largest = await compare('logits', logits!, stored.output('logits'), each.tolerance)
  for (const [kind, list] of Object.entries({ attentions, hidden_states: hiddenStates })) {
    for (let i = 0; stored.has(`${kind}.${i}`); i++) {
      if (list?.[i] === undefined) throw new Mismatch(`no ${kind}.${i}`)
      largest = Math.max(
        largest,
        await compare(`${kind}.${i}`, list[i]!, stored.output(`${kind}.${i}`), each.tolerance),
      )
    }
  }
  loss!.backward()
  const grads = model.gradDict()
  for (const [name, key] of Object.entries(each.grads)) {
    if (grads[name] === undefined) throw new Mismatch(`no gradient of ${name}`)
    largest = Math.max(
      largest,
      await compare(`gradient of ${name}`, grads[name]!, tensors[key]!, rate(each.tolerance, 'grad')),
    )
  }
  await tenSteps((await loaders[each.op]!(folder)).train() as Model, batch, stored, each)
  if (stored.has('generate')) await greedy(await models.GPT.fromPretrained(folder), stored)
  return largest
}

/** How a curve is computed: 16-bit dtypes by autocast over float32 weights, float16 with a scaled loss. */
export type Precision = 'float32' | amp.AutocastDType

/** The losses and gradient norms of the whole curve: accumulation over micro-batches, clipping, decay by rank, linear
 *  warm-up and decline. */
export async function trainingCurve(
  each: Case,
  fixtures: Fixtures,
  precision: Precision = 'float32',
): Promise<{ losses: number[]; norms: number[] }> {
  const stored = new Stored(each, await fixtures.tensors(each.file))
  const { accumulation, clip, lr, betas, eps, weight_decay_2d, weight_decay_1d, warmup, steps, K } = each.params
  const model = await models.GPT.fromPretrained(join(fixtures.folder, each.model_dir!))
  model.train()
  const parameters = model.parameters()
  const groups = [
    { params: parameters.filter((p) => p.ndim >= 2), weightDecay: weight_decay_2d },
    { params: parameters.filter((p) => p.ndim < 2), weightDecay: weight_decay_1d },
  ]
  const optimizer = new optim.AdamW(groups, { lr, betas, eps })
  const schedule = optim.linearWarmup(optimizer, { warmupSteps: warmup, totalSteps: steps })
  const [batches, labels] = [stored.input('batches')!, stored.input('labels')!]
  const dtype = precision === 'float32' ? undefined : precision
  const scaler = new amp.GradScaler({ enabled: precision === 'float16', initScale: 4096 })
  const losses: number[] = []
  const norms: number[] = []
  let micro = 0
  for (let step = 0; step < steps; step++) {
    optimizer.zeroGrad()
    let total = 0
    for (let i = 0; i < accumulation; i++) {
      const at = micro++ % K
      const batch = { inputIds: batches.select(0, at), labels: labels.select(0, at) }
      const { loss } = amp.autocast({ dtype, enabled: dtype !== undefined }, () => model.forward(batch))
      const part = loss.div(accumulation).keep()
      scaler.scale(part).backward()
      total += await part.item()
    }
    scaler.unscale_(optimizer)
    norms.push(await nn.utils.clipGradNorm_(parameters, clip).item())
    scaler.step(optimizer)
    scaler.update()
    schedule.step()
    losses.push(total)
  }
  return { losses, norms }
}

async function curve(each: Case, fixtures: Fixtures): Promise<number> {
  const stored = new Stored(each, await fixtures.tensors(each.file))
  const { losses, norms } = await trainingCurve(each, fixtures)
  const { loss_rtol_first_10, loss_atol_all, grad_norm_rtol_first_10 } = each.tolerance
  const first = (values: number[]): Tensor => tensor(values.slice(0, 10), { dtype: 'float64' })
  const ten = (name: string): Tensor => stored.output(name).slice(0, 0, 10)
  await compare('first ten losses', first(losses), ten('loss'), { rtol: loss_rtol_first_10! })
  await compare('first ten norms', first(norms), ten('grad_norm'), { rtol: grad_norm_rtol_first_10! })
  const all = tensor(losses, { dtype: 'float64' })
  return compare('losses', all, stored.output('loss'), { atol: loss_atol_all! })
}

/** Runs a model's case; returns the largest error. */
export function runModel(each: Case, fixtures: Fixtures): Promise<number> {
  return each.op === training ? curve(each, fixtures) : oneBatch(each, fixtures)
}
