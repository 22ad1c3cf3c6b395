// The loss scaler on recorded gradients with infinities and NaN in them: scale, growth tracker, what was skipped, and the
// parameters after every step.

import { amp, nn, noGrad, ones, ops, optim, type Tensor, tensor } from 'gradus'
import { type Case, compare, type Fixtures } from './fixtures'

/** Whether the case is one of the scaler. */
export function knowsScaler(op: string): boolean {
  return op === 'torch.amp.GradScaler'
}

const scalerOf = (params: Case['params']): amp.GradScaler =>
  new amp.GradScaler({
    initScale: params.init_scale,
    growthFactor: params.growth_factor,
    backoffFactor: params.backoff_factor,
    growthInterval: params.growth_interval,
  })

async function trackerOf(scaler: amp.GradScaler): Promise<number> {
  return (scaler.stateDict().growthTracker as Tensor).item()
}

/** A gradient that is `scale` times the recorded one; f: as it is, i: with an infinity, n: with a NaN. */
function scaledGradient(grad: Tensor, scale: number, kind: string): Tensor {
  return noGrad(() => {
    const scaled = grad.mul(scale)
    if (kind === 'i') scaled.narrow(0, 1, 1).fill_(Number.POSITIVE_INFINITY)
    if (kind === 'n') scaled.narrow(0, 2, 1).fill_(Number.NaN)
    return scaled
  })
}

async function runScript(each: Case, fixtures: Fixtures): Promise<number> {
  const stored = await fixtures.tensors(each.file)
  const outputs = each.outputs as Record<string, string>
  const scaler = scalerOf(each.params)
  const w = nn.parameter(stored[each.inputs.w]!.clone())
  const optimizer = new optim.SGD([w], { lr: 0.1, momentum: 0.9 })
  const [trace, weights, norms]: [number[][], Tensor[], number[]] = [[], [], []]
  for (const [i, kind] of [...(each.params.script as string)].entries()) {
    scaler.scale(tensor(1))
    const before = await scaler.getScale()
    w.grad = scaledGradient(stored[each.inputs.grads_unscaled]!.select(0, i), before, kind)
    if (each.params.clip_norm !== null) {
      scaler.unscale_(optimizer)
      norms.push(await nn.utils.clipGradNorm_([w], each.params.clip_norm).item())
    }
    const stepped = await scaler.step(optimizer)
    scaler.update()
    trace.push([before, await scaler.getScale(), await trackerOf(scaler), stepped ? 1 : 0])
    weights.push(w.detach().clone())
  }
  const float64 = { dtype: 'float64' } as const
  const errors = [
    await compare('trace', tensor(trace, float64), stored[outputs.trace!]!, each.tolerance),
    await compare('w', ops.stack(weights), stored[outputs.w!]!, each.tolerance),
  ]
  if (outputs.norm !== undefined) {
    errors.push(await compare('norm', tensor(norms), stored[outputs.norm]!, each.tolerance))
  }
  return Math.max(...errors)
}

/** One scaler for two optimizers: only the one whose gradient overflows skips, but both share the scale. */
async function runTwo(each: Case, fixtures: Fixtures): Promise<number> {
  const stored = await fixtures.tensors(each.file)
  const scaler = scalerOf(each.params)
  const params = [nn.parameter(ones([2])), nn.parameter(ones([2]))]
  const optimizers = params.map((p) => new optim.SGD([p], { lr: each.params.lr }))
  const trace: number[][] = []
  for (const bad of each.params.bad as number[]) {
    scaler.scale(tensor(1))
    const before = await scaler.getScale()
    params.forEach((p, i) => {
      p.grad = ones([2]).mul(bad === 1 && i === 1 ? Number.POSITIVE_INFINITY : before)
    })
    for (const optimizer of optimizers) scaler.step(optimizer)
    scaler.update()
    const values = await Promise.all(params.map((p) => p.select(0, 0).item()))
    trace.push([before, await scaler.getScale(), ...values])
  }
  const got = tensor(trace, { dtype: 'float64' })
  return compare('trace', got, stored[(each.outputs as Record<string, string>).trace!]!, each.tolerance)
}

/** Runs the scaler; returns the largest error. */
export function runScaler(each: Case, fixtures: Fixtures): Promise<number> {
  return each.params.script === undefined ? runTwo(each, fixtures) : runScript(each, fixtures)
}
