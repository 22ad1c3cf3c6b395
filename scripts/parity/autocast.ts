// PyTorch's autocast tables: the dtype of each operator's result under autocast on the cpu, as measured.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { amp, DTypeError, ops, type Tensor, tensor, zeros } from 'gradus'
import { type Case, type Fixtures, Mismatch } from './fixtures'

/** What a row says of an operator on float32 and on bfloat16, under autocast and without. */
export type Row = Record<'fp32_in' | 'bf16_in' | 'bf16_in_no_autocast', string>
/** The same of an operator on both. */
export type MixedRow = Record<'fp32_bf16' | 'bf16_fp32' | 'fp32_bf16_no_autocast', string>

/** autocast.json: a dtype, or 'error: ' and a reason. */
export interface AutocastTables {
  cpu_measured: Record<string, Row>
  cpu_mixed_inputs_measured: Record<string, MixedRow>
  cuda_documented: Record<string, string[]>
}

/** Reads autocast.json of a folder of fixtures. */
export function readAutocastTables(folder: string, file = 'autocast.json'): AutocastTables {
  return JSON.parse(readFileSync(join(folder, file), 'utf8'))
}

const y = tensor([0, 1, 2, 3], { dtype: 'int64' })
const batch = (t: Tensor): Tensor => t.unsqueeze(0)

/** The calls of the maker of the tables, in the same order. */
export const autocastCalls: Record<string, (t: Tensor) => Tensor> = {
  matmul: (t) => ops.matmul(t, t),
  mm: (t) => ops.mm(t, t),
  bmm: (t) => ops.bmm(batch(t), batch(t)),
  addmm: (t) => ops.addmm(t, t, t),
  baddbmm: (t) => ops.baddbmm(batch(t), batch(t), batch(t)),
  linear: (t) => ops.linear(t, t),
  einsum: (t) => ops.einsum('ij,jk->ik', t, t),
  mv: (t) => ops.mv(t, t.select(0, 0)),
  dot: (t) => ops.dot(t.select(0, 0), t.select(0, 1)),
  conv1d: (t) => ops.conv1d(batch(t), t.unsqueeze(2)),
  sdpa: (t) => ops.scaledDotProductAttention(batch(batch(t)), batch(batch(t)), batch(batch(t))),
  softmax: (t) => ops.softmax(t, -1),
  log_softmax: (t) => ops.logSoftmax(t, -1),
  layer_norm: (t) => ops.layerNorm(t, 4),
  rms_norm: (t) => ops.rmsNorm(t, 4),
  group_norm: (t) => ops.groupNorm(t, 2),
  gelu: (t) => ops.gelu(t),
  silu: (t) => ops.silu(t),
  relu: (t) => ops.relu(t),
  tanh: (t) => ops.tanh(t),
  sigmoid: (t) => ops.sigmoid(t),
  exp: (t) => ops.exp(t),
  log: (t) => ops.log(t),
  log1p: (t) => ops.log1p(t),
  sqrt: (t) => ops.sqrt(t),
  rsqrt: (t) => ops.rsqrt(t),
  reciprocal: (t) => ops.reciprocal(t),
  pow_scalar: (t) => ops.pow(t, 2),
  pow_tensor: (t) => ops.pow(t, t),
  softplus: (t) => ops.softplus(t),
  erf: (t) => ops.erf(t),
  sin: (t) => ops.sin(t),
  sum: (t) => ops.sum(t),
  sum_dim: (t) => ops.sum(t, -1),
  mean: (t) => ops.mean(t),
  prod: (t) => ops.prod(t),
  cumsum: (t) => ops.cumsum(t, -1),
  cumprod: (t) => ops.cumprod(t, -1),
  norm: (t) => ops.norm(t),
  vector_norm: (t) => ops.norm(t, 2),
  logsumexp: (t) => ops.logsumexp(t, -1),
  var: (t) => ops.variance(t),
  std: (t) => ops.std(t),
  max: (t) => ops.max(t),
  cross_entropy: (t) => ops.crossEntropy(t, y),
  nll_loss: (t) => ops.nllLoss(t, y),
  mse_loss: (t) => ops.mseLoss(t, t),
  l1_loss: (t) => ops.l1Loss(t, t),
  smooth_l1_loss: (t) => ops.smoothL1Loss(t, t),
  kl_div: (t) => ops.klDiv(t, t),
  bce_with_logits: (t) => ops.binaryCrossEntropyWithLogits(t, t.mul(0)),
  embedding: (t) => ops.embedding(y, t),
  dropout: (t) => ops.dropout(t, 0),
  add: (t) => ops.add(t, t),
  mul: (t) => ops.mul(t, t),
  transpose: (t) => ops.t(t),
  masked_fill: (t) => ops.maskedFill(t, t.gt(0), 0),
  cdist: (t) => ops.cdist(t, t),
}

/** Calls with two dtypes. */
export const mixedAutocastCalls: Record<string, (a: Tensor, b: Tensor) => Tensor> = {
  add: (a, b) => ops.add(a, b),
  mul: (a, b) => ops.mul(a, b),
  cat: (a, b) => ops.cat([a, b]),
  stack: (a, b) => ops.stack([a, b]),
  where: (a, b) => ops.where(a.gt(0), a, b),
  addcmul: (a, b) => ops.addcmul(a, b, b),
  addcdiv: (a, b) => ops.addcdiv(a, b, b),
  dot: (a, b) => ops.dot(a.select(0, 0), b.select(0, 0)),
  index_put: (a, b) => ops.indexPut(a, [y], b),
  scatter_add: (a, b) => ops.scatterAdd(a, 0, batch(y).expand(4, 4), b),
  matmul: (a, b) => ops.matmul(a, b),
  maximum: (a, b) => ops.maximum(a, b),
  bilinear: (a, b) => ops.bilinear(a, b, zeros([2, 4, 4])),
  tensordot: (a, b) => ops.tensordot(a, b, 1),
  layer_norm_w: (a, b) => ops.layerNorm(a, 4, b.select(0, 0)),
}

/** Names in the cuda lists of calls that are called something else. */
const documentedNames: Record<string, string> = {
  sdpa: 'scaled_dot_product_attention',
  pow_scalar: 'pow',
  pow_tensor: 'pow',
  sum_dim: 'sum',
  vector_norm: 'linalg_vector_norm',
  bce_with_logits: 'binary_cross_entropy_with_logits',
  // log_softmax and nll_loss
  cross_entropy: 'nll_loss',
  layer_norm_w: 'layer_norm',
}

/** What the cuda lists say that an operator's result has, of operands whose widest dtype is this one. */
function documentedDType(
  name: string,
  lists: AutocastTables['cuda_documented'],
  region: string,
  widest: string,
): string {
  const has = (list: string): boolean => lists[list]!.some((each) => each.replace(/_\*$/, '') === operator)
  const operator = documentedNames[name] ?? name
  if (has('lower_precision')) return region
  return has('fp32') || has('fp32_output_via_dtype_argument') ? 'float32' : widest
}

/** Throws unless the operator's results have the dtypes that PyTorch documents for cuda. Its operands are on the current
 *  device. */
export function checkDocumentedRow(name: string, lists: AutocastTables['cuda_documented']): void {
  const [one, two] = [autocastCalls[name], mixedAutocastCalls[name]]
  for (const region of ['float16', 'bfloat16'] as const) {
    const expectThat = (situation: string, call: () => Tensor, widest: string): void => {
      const got = amp.autocast({ dtype: region }, call).dtype
      const expected = documentedDType(name, lists, region, widest)
      if (got !== expected) throw new Mismatch(`${name} in ${region}, ${situation}: got ${got}, expected ${expected}`)
    }
    if (one !== undefined) {
      expectThat('of float32', () => one(float32), 'float32')
      expectThat('of bfloat16', () => one(bfloat16), 'bfloat16')
    }
    if (two !== undefined) {
      expectThat('of float32 and bfloat16', () => two(float32, bfloat16), 'float32')
      expectThat('of bfloat16 and float32', () => two(bfloat16, float32), 'float32')
    }
  }
}

const float32 = tensor(Array.from({ length: 4 }, (_, i) => [0.3 + i, 0.1, 1.2, 0.7 * i + 0.2]))
const bfloat16 = float32.to('bfloat16')

/** The dtype of a call's result; 'error' where it refuses the dtypes. */
function dtypeOf(call: () => Tensor, enabled: boolean): string {
  try {
    return amp.autocast({ device: 'cpu', dtype: 'bfloat16', enabled }, call).dtype
  } catch (error) {
    if (error instanceof DTypeError) return 'error'
    throw error
  }
}

function expectDType(name: string, situation: string, got: string, expected: string): void {
  // the table quotes PyTorch's error where it has no kernel of a dtype, whose name comes last; ours computes in it
  const lacking = /^error: .* for '(\w+)'$/.exec(expected)?.[1]?.toLowerCase()
  const wanted = lacking ?? (expected.startsWith('error') ? 'error' : expected)
  if (got !== wanted) throw new Mismatch(`${name}, ${situation}: got ${got}, expected ${expected}`)
}

/** Throws unless the operator behaves as the row says. */
export function checkAutocastRow(name: string, row: Row): void {
  const call = autocastCalls[name]
  if (call === undefined) throw new Mismatch(`nothing calls ${name}`)
  expectDType(
    name,
    'fp32_in',
    dtypeOf(() => call(float32), true),
    row.fp32_in,
  )
  expectDType(
    name,
    'bf16_in',
    dtypeOf(() => call(bfloat16), true),
    row.bf16_in,
  )
  expectDType(
    name,
    'bf16_in_no_autocast',
    dtypeOf(() => call(bfloat16), false),
    row.bf16_in_no_autocast,
  )
}

/** The same for a row of mixed dtypes. */
export function checkMixedAutocastRow(name: string, row: MixedRow): void {
  const call = mixedAutocastCalls[name]
  if (call === undefined) throw new Mismatch(`nothing calls ${name}`)
  expectDType(
    name,
    'fp32_bf16',
    dtypeOf(() => call(float32, bfloat16), true),
    row.fp32_bf16,
  )
  expectDType(
    name,
    'bf16_fp32',
    dtypeOf(() => call(bfloat16, float32), true),
    row.bf16_fp32,
  )
  expectDType(
    name,
    'fp32_bf16_no_autocast',
    dtypeOf(() => call(float32, bfloat16), false),
    row.fp32_bf16_no_autocast,
  )
}

/** Runs every row of the cpu tables. */
export async function runAutocastTables(each: Case, fixtures: Fixtures): Promise<number> {
  const tables = readAutocastTables(fixtures.folder, each.file)
  for (const [name, row] of Object.entries(tables.cpu_measured)) checkAutocastRow(name, row)
  for (const [name, row] of Object.entries(tables.cpu_mixed_inputs_measured)) checkMixedAutocastRow(name, row)
  return 0
}
