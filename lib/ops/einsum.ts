// Einstein summation, as permutations around matmul: no kernel of its own.

import { ArgumentError, describeShape, describeValue, ShapeError } from '../errors'
import { tidy } from '../tensor/scope'
import type { Tensor } from '../tensor/tensor'
import { sumTo } from './broadcast'
import { matmul, outerProduct } from './matmul'
import { expectTensor, type OpRecord, record } from './registry'
import { permute, reshape } from './shape'

/** A tensor whose dims have names; a dim of size 1 may stand for a longer one. */
interface Named {
  readonly x: Tensor
  readonly dims: readonly string[]
}

const refuse = (problem: string, equation: unknown, expected?: string): ArgumentError =>
  new ArgumentError('einsum', { problem, got: describeValue(equation), ...(expected ? { expected } : {}) })

// '...' stands for dims that letters do not name: '0' is the last of them, so that operands align at the right.
function nameDims(equation: string, term: string, rank: number): string[] {
  const parts = term.split('...')
  if (parts.length > 2 || parts.some((part) => !/^[a-zA-Z]*$/.test(part))) {
    throw refuse(`"${term}" is no list of letters`, equation, "letters and at most one '...'")
  }
  const [before, after] = parts as [string, string | undefined]
  const named = before.length + (after?.length ?? 0)
  if (after === undefined ? named !== rank : named > rank) {
    throw new ShapeError('einsum', {
      problem: `"${term}" does not fit its operand`,
      got: `rank ${rank}`,
      expected: `${after === undefined ? '' : 'at least '}${named} dims`,
    })
  }
  const rest = Array.from({ length: rank - named }, (_, i) => String(rank - named - 1 - i))
  return [...before, ...(after === undefined ? [] : rest), ...(after ?? '')]
}

function parse(equation: string, operands: readonly Tensor[]): { terms: string[][]; output: string[] } {
  if (typeof equation !== 'string') throw refuse('not an equation', equation, "a string like 'ij,jk->ik'")
  const [left, right, ...more] = equation.replaceAll(' ', '').split('->') as [string, string | undefined, ...string[]]
  const lists = left.split(',')
  if (more.length > 0 || lists.length !== operands.length) {
    throw refuse('the equation does not fit the operands', equation, `${operands.length} lists of letters`)
  }
  const terms = lists.map((term, i) => nameDims(equation, term, operands[i]!.ndim))
  const ellipsis = terms.flat().filter((dim) => /\d/.test(dim))
  const rest = [...new Set(ellipsis)].sort((a, b) => Number(b) - Number(a))
  if (right === undefined) {
    // implicit form: the dims of '...', then every letter that stands once, in alphabetical order
    const letters = terms.flat().filter((dim) => /[a-zA-Z]/.test(dim))
    const once = [...new Set(letters)].filter((dim) => letters.indexOf(dim) === letters.lastIndexOf(dim)).sort()
    return { terms, output: [...rest, ...once] }
  }
  const output = right.includes('...') ? nameDims(equation, right, right.length - 3 + rest.length) : [...right]
  for (const dim of output) {
    if (!terms.some((term) => term.includes(dim))) throw refuse(`no operand has the output's "${dim}"`, equation)
  }
  if (new Set(output).size !== output.length) throw refuse('the output names a dim twice', equation)
  return { terms, output }
}

/** A dim that stands twice in one operand is its diagonal. */
function takeDiagonals({ x, dims }: Named): Named {
  const again = dims.findIndex((dim, at) => dims.indexOf(dim) < at)
  if (again < 0) return { x, dims }
  const first = dims.indexOf(dims[again]!)
  const size = x.shape[first]!
  if (size !== x.shape[again]) {
    throw new ShapeError('einsum', {
      problem: `a repeated "${dims[again]}" has two sizes`,
      got: describeShape([size, x.shape[again]!]),
    })
  }
  // through the parts at each position: diagonals are rare, and this way their gradient is that of `select`
  const others = dims.filter((_, d) => d !== again)
  const order = [first, again, ...x.shape.keys()].filter((d, i, all) => all.indexOf(d) === i)
  const square = reshape(permute(x, order), [size * size, ...order.slice(2).map((d) => x.shape[d]!)])
  const picked = everyNth(square, size + 1, size)
  const dimsNow = [dims[first]!, ...order.slice(2).map((d) => dims[d]!)]
  return takeDiagonals({
    x: permute(
      picked,
      others.map((dim) => dimsNow.indexOf(dim)),
    ),
    dims: others,
  })
}

const everyNth = (x: Tensor, step: number, count: number): Tensor =>
  count === 0 ? x.slice(0, 0, 0) : x.slice(0, 0, (count - 1) * step + 1, step)

const sumRecord: OpRecord = { name: 'einsum', autocast: 'keep', backward: () => null }

/** Sums over the dims that `keep` does not name. */
function sumOut({ x, dims }: Named, keep: ReadonlySet<string>): Named {
  if (dims.every((dim) => keep.has(dim))) return { x, dims }
  const kept = x.shape.map((size, d) => (keep.has(dims[d]!) ? size : 1))
  const { shape } = x
  const summed = record(sumRecord, sumTo(x, kept), [x], [], (_, g) => g.expand(shape))
  const left = dims.filter((dim) => keep.has(dim))
  return {
    x: reshape(
      summed,
      left.map((dim) => shape[dims.indexOf(dim)]!),
    ),
    dims: left,
  }
}

function sizeOf({ x, dims }: Named, dim: string): number {
  const at = dims.indexOf(dim)
  return at < 0 ? 1 : x.shape[at]!
}

/** Both operands as one, with the dims of `keep` alone. */
function contract(a: Named, b: Named, keep: ReadonlySet<string>): Named {
  const shared = a.dims.filter((dim) => b.dims.includes(dim))
  for (const dim of shared) {
    const sizes = [sizeOf(a, dim), sizeOf(b, dim)]
    if (sizes[0] !== sizes[1] && !sizes.includes(1)) {
      throw new ShapeError('einsum', {
        problem: `"${dim}" has two sizes`,
        got: describeShape(sizes),
        expected: 'sizes that are equal or 1',
      })
    }
  }
  // A dim that only one side really has is kept or summed there; matmul broadcasts batch dims of size 1.
  const inner = shared.filter((dim) => !keep.has(dim) && sizeOf(a, dim) === sizeOf(b, dim))
  const left = sumOut(a, new Set([...keep, ...inner, ...b.dims.filter((dim) => sizeOf(a, dim) === 1)]))
  const right = sumOut(b, new Set([...keep, ...inner, ...a.dims.filter((dim) => sizeOf(b, dim) === 1)]))
  const batch = shared.filter((dim) => !inner.includes(dim))
  const onlyA = left.dims.filter((dim) => !shared.includes(dim))
  const onlyB = right.dims.filter((dim) => !shared.includes(dim))
  const arranged = (side: Named, order: readonly (readonly string[])[]): Tensor => {
    const present = order.flat()
    const x = permute(
      side.x,
      present.map((dim) => side.dims.indexOf(dim)),
    )
    const merged = order.slice(1).map((group) => group.reduce((n, dim) => n * sizeOf(side, dim), 1))
    return reshape(x, [...order[0]!.map((dim) => sizeOf(side, dim)), ...merged])
  }
  const factors = [arranged(left, [batch, onlyA, inner]), arranged(right, [batch, inner, onlyB])] as const
  // what is not summed is no product of matrices for autocast, as in PyTorch, which multiplies it element by element
  const product = inner.length > 0 ? matmul(...factors) : outerProduct(...factors)
  const sizes = batch.map((dim) => Math.max(sizeOf(a, dim), sizeOf(b, dim)))
  const empty = batch.map((dim, i) => (sizeOf(a, dim) === 0 || sizeOf(b, dim) === 0 ? 0 : sizes[i]!))
  const shape = [...empty, ...onlyA.map((dim) => sizeOf(left, dim)), ...onlyB.map((dim) => sizeOf(right, dim))]
  return { x: reshape(product, shape), dims: [...batch, ...onlyA, ...onlyB] }
}

/** Sum of products over named dims: letters that the output lacks are summed, '...' stands for broadcast dims, a letter
 *  twice in one operand is a diagonal. Operands are taken from left to right, each pair through one matmul.
 *  @throws ArgumentError for an equation that does not fit; ShapeError when a letter has two sizes
 *  @see https://docs.pytorch.org/docs/stable/generated/torch.einsum.html
 *  @example einsum('bij,bjk->bik', ones([2, 3, 4]), ones([2, 4, 5])).shape // [2, 3, 5] */
export function einsum(equation: string, ...operands: Tensor[]): Tensor {
  if (operands.length === 0) throw refuse('no operands', equation)
  for (const operand of operands) expectTensor('einsum', 'an operand', operand)
  const { terms, output } = parse(equation, operands)
  return tidy(() => {
    const sides = operands.map((x, i) => takeDiagonals({ x, dims: terms[i]! }))
    let result = sides[0]!
    for (let i = 1; i < sides.length; i++) {
      result = contract(result, sides[i]!, new Set([...output, ...sides.slice(i + 1).flatMap((side) => side.dims)]))
    }
    result = sumOut(result, new Set(output))
    return permute(
      result.x,
      output.map((dim) => result.dims.indexOf(dim)),
    )
  })
}
