// The operators of the fixtures, one line each: how the reference writes it, and how gradus does.

import { nn, ops, type Tensor } from 'gradus'
import { type Case, compare, type Fixtures, Mismatch, number, viewed } from './fixtures'

type Inputs = Record<string, Tensor>
// biome-ignore lint/suspicious/noExplicitAny: parameters of any operator, as the manifest has them
type Params = Record<string, any>
type Operator = (inputs: Inputs, params: Params) => Tensor | Tensor[]

const x1 =
  (fn: (x: Tensor) => Tensor): Operator =>
  ({ x }) =>
    fn(x!)

const lossOptions = (p: Params): object => ({
  ...(p.reduction && { reduction: p.reduction }),
  ...(p.ignore_index !== undefined && { ignoreIndex: p.ignore_index }),
  ...(p.label_smoothing !== undefined && { labelSmoothing: p.label_smoothing }),
})

const reduceOptions = (p: Params): { keepdim: boolean } => ({ keepdim: p.keepdim ?? false })

const lastSizes = (x: Tensor, n: number): number[] => x.shape.slice(-n)

/** Arithmetic, elementwise functions and matrix products. */
const arithmetic: Record<string, Operator> = {
  'a + b': ({ a, b }) => a!.add(b!),
  'torch.add(a,b,alpha)': ({ a, b }, { alpha }) => a!.add(b!, { alpha }),
  'a - b': ({ a, b }) => a!.sub(b!),
  'a * b': ({ a, b }) => a!.mul(b!),
  'a / b': ({ a, b }) => a!.div(b!),
  'a / b (int64)': ({ a, b }) => a!.div(b!),
  'a + s': ({ a }, { s }) => a!.add(s),
  's - a': ({ a }, { s }) => ops.sub(s, a!),
  's / a': ({ a }, { s }) => ops.div(s, a!),
  'torch.pow(a,b)': ({ a, b }) => a!.pow(b!),
  'torch.pow(a,s)': ({ a }, { s }) => a!.pow(s),
  'torch.maximum(a,b)': ({ a, b }) => ops.maximum(a!, b!),
  'torch.minimum(a,b)': ({ a, b }) => ops.minimum(a!, b!),
  'torch.clamp(a,min,max)': ({ a }, { min, max }) => a!.clamp(min, max),
  "torch.div(a,b,rounding_mode='floor')": ({ a, b }) => a!.div(b!, { roundingMode: 'floor' }),
  'torch.remainder(a,b)': ({ a, b }) => a!.remainder(b!),
  'torch.round(x)': x1((x) => x.round()),
  'exp(x)': x1((x) => x.exp()),
  'log(x)': x1((x) => x.log()),
  'sqrt(x)': x1((x) => x.sqrt()),
  'rsqrt(x)': x1((x) => x.rsqrt()),
  'tanh(x)': x1((x) => x.tanh()),
  'sigmoid(x)': x1((x) => x.sigmoid()),
  'relu(x)': x1((x) => x.relu()),
  'silu(x)': x1((x) => ops.silu(x)),
  'neg(x)': x1((x) => x.neg()),
  'abs(x)': x1((x) => x.abs()),
  'erf(x)': x1((x) => x.erf()),
  'sin(x)': x1((x) => x.sin()),
  'cos(x)': x1((x) => x.cos()),
  'log1p(x)': x1((x) => x.log1p()),
  'square(x)': x1((x) => x.square()),
  'reciprocal(x)': x1((x) => x.reciprocal()),
  'softplus(x)': x1((x) => ops.softplus(x)),
  'F.gelu(x,approximate)': ({ x }, { approximate }) => ops.gelu(x!, { approximate }),
  'x.to(dtype), back to float32': ({ x }, { dtype }) => [x!.to(dtype), x!.to(dtype).to('float32')],
  'a @ b': ({ a, b }) => a!.matmul(b!),
  'torch.addmm(c,a,b,beta,alpha)': ({ a, b, c }, { beta, alpha }) => ops.addmm(c!, a!, b!, { beta, alpha }),
  'F.linear(x,w,b)': ({ x, w, b }) => ops.linear(x!, w!, b!),
  'F.linear(x,w)': ({ x, w }) => ops.linear(x!, w!),
}

/** Views, joins, indexing. */
const shapes: Record<string, Operator> = {
  'x.transpose(dim0,dim1)': ({ x }, { dim0, dim1 }) => x!.transpose(dim0, dim1),
  'x.permute(dims)': ({ x }, { dims }) => x!.permute(dims),
  'x.reshape(shape)': ({ x }, { shape }) => x!.reshape(shape),
  'x.flatten(start,end)': ({ x }, { start, end }) => x!.flatten(start, end),
  'x.unsqueeze(dim)': ({ x }, { dim }) => x!.unsqueeze(dim),
  'x.squeeze()': x1((x) => x.squeeze()),
  // the makers' name for x[..., 0:-1, ::2]
  'x[:, 1:-1, ::2]': x1((x) => x.index('...', '0:-1', '::2')),
  'x[..., -1]': x1((x) => x.index('...', -1)),
  'torch.cat([a,b,c],dim)': ({ a, b, c }, { dim }) => ops.cat([a!, b!, c!], dim),
  'torch.cat([a,a],dim)': ({ a }, { dim }) => ops.cat([a!, a!], dim),
  'torch.stack([a,b],dim)': ({ a, b }, { dim }) => ops.stack([a!, b!], dim),
  'torch.split(x,sizes,dim)': ({ x }, { sizes, dim }) => x!.split(sizes, dim),
  'torch.chunk(x,n,dim)': ({ x }, { n, dim }) => x!.chunk(n, dim),
  'torch.gather(x,dim,index)': ({ x, index }, { dim }) => x!.gather(dim, index!),
  'torch.index_select(x,dim,index)': ({ x, index }, { dim }) => x!.indexSelect(dim, index!),
  'torch.scatter_add(x,dim,index,src)': ({ x, index, src }, { dim }) => x!.scatterAdd(dim, index!, src!),
  'torch.index_add(x,dim,index,src)': ({ x, index, src }, { dim }) => x!.indexAdd(dim, index!, src!),
  'torch.where(cond,a,b)': ({ cond, a, b }) => ops.where(cond!, a!, b!),
  'x.masked_fill(mask,value)': ({ x, mask }, { value }) => x!.maskedFill(mask!, number(value)),
  'torch.tril(x,diagonal)': ({ x }, { diagonal }) => x!.tril(diagonal),
  'torch.triu(x,diagonal)': ({ x }, { diagonal }) => x!.triu(diagonal),
  'x.expand(shape)': ({ x }, { shape }) => x!.expand(shape),
  'x.repeat(reps)': ({ x }, { reps }) => x!.repeat(reps),
  'x.repeat_interleave(n,dim)': ({ x }, { n, dim }) => x!.repeatInterleave(n, dim),
  'x.flip(dims)': ({ x }, { dims }) => x!.flip(dims),
  'torch.topk(x,k,dim)': ({ x }, { k, dim }) => {
    const { values, indices } = x!.topk(k, dim)
    return [values, indices]
  },
  'F.one_hot(index,n)': ({ index }, { n }) => ops.oneHot(index!, n),
  'F.embedding(index,w)': ({ index, w }) => ops.embedding(index!, w!),
  'F.embedding(index,w,padding_idx)': ({ index, w }, { padding_idx }) =>
    ops.embedding(index!, w!, { paddingIdx: padding_idx }),
}

/** Reductions and softmax. */
const reductions: Record<string, Operator> = {
  'F.softmax(x,dim)': ({ x }, { dim }) => x!.softmax(dim),
  'F.log_softmax(x,dim)': ({ x }, { dim }) => x!.logSoftmax(dim),
  'x.sum()': x1((x) => x.sum()),
  'x.sum() (bool)': x1((x) => x.sum()),
  'x.mean()': x1((x) => x.mean()),
  'x.var()': x1((x) => x.var()),
  'x.std()': x1((x) => x.std()),
  'x.max()': x1((x) => x.max()),
  'x.min()': x1((x) => x.min()),
  'x.prod()': x1((x) => x.prod()),
  'x.norm()': x1((x) => x.norm()),
  'torch.argmax(x)': x1((x) => x.argmax()),
  'torch.argmax(x,dim)': ({ x }, { dim }) => x!.argmax(dim),
  'torch.sum(x,dim)': ({ x }, { dim }) => x!.sum(dim),
  'torch.mean(x,dim)': ({ x }, { dim }) => x!.mean(dim),
  'torch.amax(x,dim)': ({ x }, { dim }) => x!.amax(dim),
  'torch.logsumexp(x,dim)': ({ x }, { dim }) => x!.logsumexp(dim),
  'torch.sum(x,dim,keepdim)': ({ x }, p) => x!.sum(p.dim, reduceOptions(p)),
  'torch.mean(x,dim,keepdim)': ({ x }, p) => x!.mean(p.dim, reduceOptions(p)),
  'torch.logsumexp(x,dim,keepdim)': ({ x }, p) => x!.logsumexp(p.dim, reduceOptions(p)),
  'torch.amax(x,dim,keepdim)': ({ x }, p) => x!.amax(p.dim, reduceOptions(p)),
  'torch.var(x,dim,keepdim)': ({ x }, p) => x!.var(p.dim, reduceOptions(p)),
  'torch.std(x,dim,keepdim)': ({ x }, p) => x!.std(p.dim, reduceOptions(p)),
  'torch.var(x,dim,correction=0)': ({ x }, { dim, correction }) => x!.var(dim, { correction }),
  'torch.max(x,dim,keepdim)': ({ x }, p) => Object.values(x!.max(p.dim, reduceOptions(p))),
  'torch.min(x,dim,keepdim)': ({ x }, p) => Object.values(x!.min(p.dim, reduceOptions(p))),
  'torch.max(x,dim)': ({ x }, { dim }) => Object.values(x!.max(dim)),
  'torch.linalg.vector_norm(x,p,dim)': ({ x }, { p, dim }) => x!.norm(number(p), dim),
  'torch.linalg.vector_norm(x,2,dim)': ({ x }, { p, dim }) => x!.norm(number(p), dim),
  'torch.cumsum(x,dim)': ({ x }, { dim }) => x!.cumsum(dim),
}

/** What a transformer is made of. */
const layers: Record<string, Operator> = {
  'F.layer_norm(x,[last],w,b,eps)': ({ x, w, b }, { eps }) => ops.layerNorm(x!, lastSizes(x!, 1), w!, b!, eps),
  'F.layer_norm(x,[last])': ({ x }) => ops.layerNorm(x!, lastSizes(x!, 1)),
  'F.layer_norm(x,[last two],w,b)': ({ x, w, b }) => ops.layerNorm(x!, lastSizes(x!, 2), w!, b!),
  'F.rms_norm(x,[last],w,eps)': ({ x, w }, { eps }) => ops.rmsNorm(x!, lastSizes(x!, 1), w!, eps),
  'F.rms_norm(x,[last])': ({ x }) => ops.rmsNorm(x!, lastSizes(x!, 1)),
  'F.dropout(x,p,training)': ({ x }, { p, training }) => ops.dropout(x!, p, training),
  'F.cross_entropy': ({ x, target, weight }, p) => ops.crossEntropy(x!, target!, { weight, ...lossOptions(p) }),
  'F.nll_loss': ({ x, target, weight }, p) => ops.nllLoss(x!, target!, { weight, ...lossOptions(p) }),
  'F.mse_loss': ({ x, y }, p) => ops.mseLoss(x!, y!, lossOptions(p)),
  'F.l1_loss': ({ x, y }, p) => ops.l1Loss(x!, y!, lossOptions(p)),
  'F.kl_div': ({ x, y }, p) => ops.klDiv(x!, y!, lossOptions(p)),
  'F.binary_cross_entropy_with_logits': ({ x, y, weight, pos_weight }, p) =>
    ops.binaryCrossEntropyWithLogits(x!, y!, { weight, posWeight: pos_weight, ...lossOptions(p) }),
  'F.scaled_dot_product_attention': ({ q, k, v, mask }, { causal, scale, gqa }) =>
    ops.scaledDotProductAttention(q!, k!, v!, { attnMask: mask, isCausal: causal, scale, enableGqa: gqa }),
  'rope rotate_half (Llama, HF)': ({ x, cos, sin }) => ops.rope(x!, cos!, sin!),
  'rope interleaved (GPT-J)': ({ x, cos, sin }) => ops.rope(x!, cos!, sin!, { interleaved: true }),
}

/** Gradients that are clipped in place. */
function withGrads(grads: Inputs, clip: (parameters: Tensor[]) => Tensor | null): Tensor[] {
  const parameters = Object.values(grads).map((grad) => {
    const each = nn.parameter(grad.clone())
    each.grad = grad.clone()
    return each
  })
  const norm = clip(parameters)
  const clipped = parameters.map(({ grad }) => grad!)
  return norm === null ? clipped : [norm, ...clipped]
}

const clipping: Record<string, Operator> = {
  clip_grad_norm_: (grads, { max_norm, norm_type }) =>
    withGrads(grads, (parameters) => nn.utils.clipGradNorm_(parameters, max_norm, { normType: number(norm_type) })),
  clip_grad_value_: (grads, { clip }) =>
    withGrads(grads, (parameters) => {
      nn.utils.clipGradValue_(parameters, clip)
      return null
    }),
}

const operators: Record<string, Operator> = { ...arithmetic, ...shapes, ...reductions, ...layers, ...clipping }

/** Whether the table has the case's operator. */
export function knowsOperator(op: string): boolean {
  return op in operators
}

/** Runs an operator forward and backward; returns the largest error. */
export async function runOperator(each: Case, fixtures: Fixtures): Promise<number> {
  const stored = await fixtures.tensors(each.file)
  const inputs: Inputs = {}
  for (const [name, key] of Object.entries(each.inputs)) {
    inputs[name] = viewed(stored[key]!, each.views?.[name]).requiresGrad_(name in each.grads)
  }
  const result = operators[each.op]!(inputs, each.params)
  const outputs = Array.isArray(result) ? result : [result]
  const names = each.outputs as string[]
  if (outputs.length !== names.length) throw new Mismatch(`${outputs.length} outputs, expected ${names.length}`)
  let largest = 0
  for (const [i, name] of names.entries()) {
    largest = Math.max(largest, await compare(`output ${i}`, outputs[i]!, stored[name]!, each.tolerance))
  }
  const incoming = Object.entries(each.grad_outputs ?? {})
  if (Object.keys(each.grads).length === 0) return largest
  if (incoming.length === 1) {
    const [at, key] = incoming[0]!
    outputs[Number(at)]!.backward({ gradient: stored[key]! })
  } else {
    const sums = incoming.map(([at, key]) => outputs[Number(at)]!.mul(stored[key]!).sum())
    sums.reduce((a, b) => a.add(b)).backward()
  }
  for (const [name, key] of Object.entries(each.grads)) {
    const { grad } = inputs[name]!
    if (grad === null) throw new Mismatch(`no gradient of ${name}`)
    largest = Math.max(largest, await compare(`gradient of ${name}`, grad, stored[key]!, each.tolerance))
  }
  return largest
}
