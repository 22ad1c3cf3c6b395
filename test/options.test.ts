import { describe, expect, it } from 'vitest'
import { ArgumentError, data, models, nn, ones, ops, optim, rand, tensor, zeros } from '../lib/index'

// Each would count for nothing without a word: what a PyTorch user writes first.
const loose = (value: unknown) => value as never
const parameters = () => new nn.Linear(2, 2).parameters()
const attend = (call: object) =>
  new nn.MultiheadAttention(2, 1).forward(ones([1, 2]), ones([1, 2]), ones([1, 2]), loose(call))
const encode = (call: object) => new nn.TransformerEncoderLayer(2, 1).forward(ones([1, 2]), loose(call))
const wrong: [string, () => unknown, string][] = [
  ['Linear', () => new nn.Linear(2, 2, loose(false)), 'Linear: the options are not an object: got false'],
  ['Linear by name', () => new nn.Linear(2, 2, loose({ biass: false })), 'Linear: unknown option: got biass'],
  ['Embedding', () => new nn.Embedding(4, 2, loose({ padding_idx: 0 })), 'write paddingIdx.'],
  ['LayerNorm', () => new nn.LayerNorm(4, loose(1e-3)), 'LayerNorm: the options are not an object: got 0.001'],
  ['RMSNorm', () => new nn.RMSNorm(4, loose({ epsilon: 1 })), 'RMSNorm: unknown option: got epsilon'],
  ['MultiheadAttention', () => new nn.MultiheadAttention(4, 2, loose({ batch_first: true })), 'write batchFirst.'],
  ['TransformerEncoderLayer', () => new nn.TransformerEncoderLayer(4, 2, loose(16)), 'not an object: got 16'],
  ['GELU', () => new nn.GELU(loose('tanh')), 'GELU: the options are not an object: got "tanh"'],
  ['CrossEntropyLoss', () => new nn.CrossEntropyLoss(loose({ ignore_index: 0 })), 'write ignoreIndex.'],
  [
    'crossEntropy',
    () => ops.crossEntropy(ones([2, 3]), tensor([0, 1]).to('int64'), loose({ label_smoothing: 1 })),
    'write labelSmoothing.',
  ],
  [
    'linearCrossEntropy',
    () => ops.linearCrossEntropy(ones([2, 3]), ones([4, 3]), tensor([0, 1]).to('int64'), loose({ weight: ones([4]) })),
    "linearCrossEntropy: unknown option: got weight; write classWeight; weight is the layer's and comes second.",
  ],
  [
    'linearCrossEntropy by name',
    () => ops.linearCrossEntropy(ones([2, 3]), ones([4, 3]), tensor([0, 1]).to('int64'), loose({ ignore_index: 0 })),
    'linearCrossEntropy: unknown option: got ignore_index',
  ],
  ['MSELoss', () => new nn.MSELoss(loose('sum')), 'MSELoss: the options are not an object: got "sum"'],
  ['AdamW', () => new optim.AdamW(parameters(), loose({ weight_decay: 0 })), 'AdamW: unknown option: got weight_decay'],
  ['AdamW by place', () => new optim.AdamW(parameters(), loose(0.1)), 'AdamW: the options are not an object: got 0.1'],
  ['a group', () => new optim.SGD([loose({ params: parameters(), weight_decay: 0 })]), 'write weightDecay.'],
  [
    'linearWarmup',
    () => optim.linearWarmup(new optim.SGD(parameters()), loose(undefined)),
    'not an object: got undefined',
  ],
  [
    'inverseSqrt',
    () => optim.inverseSqrt(new optim.SGD(parameters()), loose({ warmup_steps: 1 })),
    'write warmupSteps.',
  ],
  ['clipGradNorm_', () => nn.utils.clipGradNorm_(parameters(), 1, loose(Number.POSITIVE_INFINITY)), 'got Infinity'],
  ['loadStateDict', () => new nn.Identity().loadStateDict({}, loose(false)), 'not an object: got false'],
  ['GPT', () => new models.GPT(loose({ n_layer: 1 })), 'write nLayer.'],
  ['GPT without', () => new models.GPT(loose(null)), 'GPT: the options are not an object: got null'],
  ['BERT', () => new models.BERT(loose({ hidden_size: 8 })), 'write hiddenSize.'],
  ['DataLoader', () => new data.DataLoader([1], loose({ batch_size: 1 })), 'write batchSize.'],
  ['DataLoader by place', () => new data.DataLoader([1], loose(4)), 'DataLoader: the options are not an object: got 4'],
  ['TextDataset', () => new data.TextDataset(new Uint8Array(9), loose({ block_size: 2 })), 'write blockSize.'],
  ['sum', () => ones([2]).sum(0, loose(true)), 'sum: the options are not an object: got true'],
  ['mean', () => ones([2]).mean(0, loose({ keepDim: true })), 'mean: unknown option: got keepDim, expected keepdim.'],
  ['var', () => ones([2]).var(0, loose({ unbiased: false })), 'var: unknown option: got unbiased'],
  ['sort', () => ones([2]).sort(0, loose(true)), 'sort: the options are not an object: got true'],
  ['topk', () => ones([2]).topk(1, 0, loose(false)), 'topk: the options are not an object: got false'],
  ['multinomial', () => ones([2]).multinomial(1, loose(true)), 'multinomial: the options are not an object: got true'],
  ['add', () => ones([2]).add(1, loose(2)), 'add: the options are not an object: got 2'],
  ['sub_', () => ones([2]).sub_(1, loose({ beta: 2 })), 'sub_: unknown option: got beta, expected alpha.'],
  ['div', () => ones([2]).div(2, loose('floor')), 'div: the options are not an object: got "floor"'],
  ['round', () => ones([2]).round(loose(2)), 'round: the options are not an object: got 2'],
  ['isclose', () => ones([2]).allclose(ones([2]), loose(1e-3)), 'isclose: the options are not an object: got 0.001'],
  ['gelu', () => ops.gelu(ones([2]), loose('tanh')), 'gelu: the options are not an object: got "tanh"'],
  ['softplus', () => ops.softplus(ones([2]), loose(2)), 'softplus: the options are not an object: got 2'],
  ['embedding', () => ops.embedding(zeros([1]).long(), ones([2, 2]), loose({ padding_idx: 0 })), 'write paddingIdx.'],
  [
    'attention',
    () => ops.scaledDotProductAttention(ones([1, 2]), ones([1, 2]), ones([1, 2]), loose({ is_causal: true })),
    'write isCausal.',
  ],
  [
    'attention layer',
    () => attend({ key_padding_mask: null }),
    'MultiheadAttention: unknown option: got key_padding_mask',
  ],
  ['encoder layer', () => encode({ src_mask: null }), 'write srcMask.'],
  ['zeros', () => zeros([2], loose({ dType: 'int64' })), 'zeros: unknown option: got dType'],
  ['rand', () => rand([2], loose('float64')), 'rand: the options are not an object: got "float64"'],
]

describe('options', () => {
  it.each(wrong)('%s: refuses what it does not know', (_name, call, text) => {
    expect(call).toThrow(ArgumentError)
    expect(call).toThrow(text)
  })

  it('may be left out or undefined', () => {
    expect(new nn.Linear(2, 2, undefined).bias).not.toBeNull()
    expect(ones([2]).sum(0, undefined).shape).toEqual([])
  })

  it('groups may hold more than the library reads', () => {
    const group = { params: new nn.Linear(2, 2).parameters(), name: 'all' }
    expect(new optim.SGD([group]).paramGroups[0]).toMatchObject({ name: 'all' })
  })
})
