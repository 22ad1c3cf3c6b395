import { describe, expect, it } from 'vitest'
import { isHostArray } from '../../lib/data/hostArray'
import { DataLoader, defaultCollate, hostArray, padCollate, TensorDataset } from '../../lib/data/index'
import { type Tensor, tensor } from '../../lib/index'

/** Shape, type and elements of every array of a batch. */
function show(batch: unknown): unknown {
  if (isHostArray(batch)) return [batch.data.constructor.name, batch.shape, Array.from<number | bigint>(batch.data)]
  return Object.fromEntries(Object.entries(batch as object).map(([key, value]) => [key, show(value)]))
}

describe('defaultCollate', () => {
  it('numbers give float32, BigInt int64, booleans bool, text a list', async () => {
    const samples = [
      { value: 1, id: 5n, flag: true, name: 'a' },
      { value: 2.5, id: 6n, flag: false, name: 'b' },
    ]
    const { value, id, flag, name } = await defaultCollate(samples)
    expect([value.dtype, id.dtype, flag.dtype]).toEqual(['float32', 'int64', 'bool'])
    expect([await value.array(), await id.array(), await flag.array(), name]).toEqual([
      [1, 2.5],
      [5, 6],
      [true, false],
      ['a', 'b'],
    ])
  })

  it.each([
    [new Float64Array(2), 'float64'],
    [new Float32Array(2), 'float32'],
    [new BigInt64Array(2), 'int64'],
    [new Int32Array(2), 'int32'],
    [new Uint8Array(2), 'uint8'],
    [new Int8Array(2), 'int32'],
    [new Int16Array(2), 'int32'],
    [new Uint16Array(2), 'int32'],
    [new Uint32Array(2), 'int64'],
  ])('stacks %o as %s', async (array, dtype) => {
    const batch = await defaultCollate([array, array, array])
    expect([batch.dtype, batch.shape]).toEqual([dtype, [3, 2]])
    expect(await batch.array()).toEqual([
      [0, 0],
      [0, 0],
      [0, 0],
    ])
  })

  it('lists of numbers and of rows are one tensor, tuples several', async () => {
    const list = await defaultCollate([
      [1, 2, 3],
      [4, 5, 6],
    ])
    expect(await list.array()).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ])
    const rows = await defaultCollate([
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      [
        [7, 8],
        [9, 10],
        [11, 12],
      ],
    ])
    expect(rows.shape).toEqual([2, 3, 2])
    expect(await rows.array()).toEqual([
      [
        [1, 2],
        [3, 4],
        [5, 6],
      ],
      [
        [7, 8],
        [9, 10],
        [11, 12],
      ],
    ])
    const pairs: [Float32Array, number][] = [
      [Float32Array.of(1, 2), 0],
      [Float32Array.of(3, 4), 1],
    ]
    const [x, y] = await defaultCollate(pairs)
    expect([await x.array(), await y.array()]).toEqual([
      [
        [1, 2],
        [3, 4],
      ],
      [0, 1],
    ])
  })

  it('goes through nested objects and keeps the shape of host arrays', async () => {
    const sample = () => ({ image: { pixels: hostArray(new Uint8Array(6), [2, 3]), size: [2, 3] } })
    const { image } = await defaultCollate([sample(), sample()])
    expect(image.pixels.shape).toEqual([2, 2, 3])
    expect(await image.size.array()).toEqual([
      [2, 3],
      [2, 3],
    ])
  })

  it.each([
    [
      [{ x: new Float32Array(3) }, { x: new Float32Array(2) }],
      'sample.x differs in size within a batch: got [2], expected [3]; use padCollate',
    ],
    [
      [{ x: new Float32Array(3) }, { x: new Int32Array(3) }],
      'sample.x changes its type within a batch: got a Int32Array of length 3, expected a Float32Array',
    ],
    [[{ x: 1 }, { x: 'a' }], 'sample.x changes its kind within a batch: got "a", expected a number'],
    [[{ x: 1 }, { y: 1 }], 'a sample lacks the field x that the first one has'],
    [[[1, 2], [3]], 'sample differs in size within a batch'],
    [
      [
        [[1, 2], [3]],
        [[1, 2], [3]],
      ],
      'sample differs in size within a batch: got [2, 1], expected rows of one length [2]',
    ],
    [[{ x: null }], 'sample.x cannot be put into a batch: got null'],
    [[{ x: new Date() }], 'sample.x cannot be put into a batch: got a Date'],
    [[new Float32Array(1), 3], 'sample cannot be put into a batch: got 3'],
  ])('refuses %o', async (samples, message) => {
    await expect(defaultCollate(samples as object[])).rejects.toThrow(message)
  })
})

describe('samples that hold tensors', () => {
  it.each(['float32', 'float64', 'float16', 'bfloat16', 'int64', 'int32', 'uint8', 'bool'] as const)(
    'are stacked in %s',
    async (dtype) => {
      const sample = (a: number, b: number) => ({
        x: [tensor([[a, b]], { dtype }).transpose(0, 1), a] as [Tensor, number],
      })
      const [x, rest] = (await defaultCollate([sample(0, 1), sample(1, 1)])).x
      expect([x.dtype, x.shape, await rest.array()]).toEqual([dtype, [2, 2, 1], [0, 1]])
      expect(await x.to('float32').array()).toEqual([
        [[0], [1]],
        [[1], [1]],
      ])
    },
  )

  it('TensorDataset gives rows, in this thread and in workers', async () => {
    const x = tensor(
      [
        [0, 1],
        [2, 3],
        [4, 5],
      ],
      { dtype: 'bfloat16' },
    )
    const y = tensor([7, 8, 9], { dtype: 'int64' })
    const dataset = new TensorDataset(x, y)
    expect(dataset.length).toBe(3)
    for (const numWorkers of [0, 1]) {
      const batches = []
      for await (const [bx, by] of new DataLoader(dataset, { batchSize: 2, numWorkers })) {
        expect([bx.dtype, by.dtype]).toEqual(['bfloat16', 'int64'])
        batches.push([await bx.array(), await by.array()])
      }
      expect(batches).toEqual([
        [
          [
            [0, 1],
            [2, 3],
          ],
          [7, 8],
        ],
        [[[4, 5]], [9]],
      ])
    }
    expect(() => new TensorDataset(x, tensor([1, 2]))).toThrow(
      'the tensors differ in length: got [3, 2] and [2], expected one size',
    )
    expect(() => new TensorDataset(tensor(1))).toThrow('the tensors differ in length: got []')
    expect(() => new TensorDataset(5 as never)).toThrow('TensorDataset: not a tensor: got 5')
  })
})

describe('padCollate', () => {
  const samples = () => [
    { inputIds: [5, 6, 7], id: 1 },
    { inputIds: Int32Array.of(8), id: 2 },
  ]

  it('fills with the pad token, 0 in the mask and -100 in the labels', () => {
    expect(show(padCollate({ padId: 9 })(samples()))).toEqual({
      inputIds: ['Int32Array', [2, 3], [5, 6, 7, 8, 9, 9]],
      attentionMask: ['Int32Array', [2, 3], [1, 1, 1, 1, 0, 0]],
      labels: ['Int32Array', [2, 3], [5, 6, 7, 8, -100, -100]],
      id: ['Float32Array', [2], [1, 2]],
    })
  })

  it('pads on the left, to a multiple, to a length that also cuts', () => {
    expect(show(padCollate({ side: 'left', padToMultipleOf: 4 })(samples()))).toMatchObject({
      inputIds: ['Int32Array', [2, 4], [0, 5, 6, 7, 0, 0, 0, 8]],
      attentionMask: ['Int32Array', [2, 4], [0, 1, 1, 1, 0, 0, 0, 1]],
      labels: ['Int32Array', [2, 4], [-100, 5, 6, 7, -100, -100, -100, 8]],
    })
    expect(show(padCollate({ maxLength: 2 })(samples()))).toMatchObject({
      inputIds: ['Int32Array', [2, 2], [5, 6, 8, 0]],
      labels: ['Int32Array', [2, 2], [5, 6, 8, -100]],
    })
  })

  it('keeps labels and masks that samples bring, one label or one for each token', () => {
    expect(
      show(
        padCollate()([
          { inputIds: [1, 2], labels: 1 },
          { inputIds: [3], labels: 0 },
        ]),
      ),
    ).toMatchObject({
      labels: ['Int32Array', [2], [1, 0]],
    })
    const own = [
      { inputIds: [1, 2], labels: [-100, 2] },
      { inputIds: [3, 4, 5], attentionMask: [1, 0, 1] },
    ]
    expect(show(padCollate()(own))).toMatchObject({
      attentionMask: ['Int32Array', [2, 3], [1, 1, 0, 1, 0, 1]],
      labels: ['Int32Array', [2, 3], [-100, 2, -100, 3, -100, 5]],
    })
    expect(() => padCollate()([{ inputIds: [1, 2], labels: [1] }])).toThrow(
      'sample.labels differs in size within a batch: got [1], expected 2 elements, as inputIds',
    )
    expect(() => padCollate()([{ ids: [1] } as never])).toThrow(
      'sample.inputIds cannot be put into a batch: got undefined',
    )
    expect(() => padCollate({ padToMultipleOf: 0 })).toThrow('padToMultipleOf is out of range: got 0')
  })
})
