// The textbook's attention in float64, forward and backward, one row at a time.

export interface ReferenceShape {
  B: number
  H: number
  kvHeads: number
  L: number
  S: number
  D: number
  E: number
}

/** What is added to a score; -infinity hides it. */
export type Bias = (b: number, h: number, i: number, j: number) => number

export interface Reference {
  out: Float64Array
  weights: Float64Array
  entropy: Float64Array
  received: Float64Array
  dq: Float64Array
  dk: Float64Array
  dv: Float64Array
}

/** Operands are row-major [B, H, L, D], [B, kvHeads, S, D], [B, kvHeads, S, E] and the gradient [B, H, L, E]. */
export function referenceAttention(
  [q, k, v, g]: readonly [ArrayLike<number>, ArrayLike<number>, ArrayLike<number>, ArrayLike<number>],
  { B, H, kvHeads, L, S, D, E }: ReferenceShape,
  bias: Bias,
  scale = 1 / Math.sqrt(D),
): Reference {
  const result: Reference = {
    out: new Float64Array(B * H * L * E),
    weights: new Float64Array(B * H * L * S),
    entropy: new Float64Array(B * H * L),
    received: new Float64Array(B * H * S),
    dq: new Float64Array(B * H * L * D),
    dk: new Float64Array(B * kvHeads * S * D),
    dv: new Float64Array(B * kvHeads * S * E),
  }
  const { out, weights, entropy, received, dq, dk, dv } = result
  for (let b = 0; b < B; b++) {
    for (let h = 0; h < H; h++) {
      const kv = b * kvHeads + Math.floor(h / (H / kvHeads))
      for (let i = 0; i < L; i++) {
        const row = (b * H + h) * L + i
        const p = new Float64Array(S)
        for (let j = 0; j < S; j++) {
          let dot = 0
          for (let d = 0; d < D; d++) dot += q[row * D + d]! * k[(kv * S + j) * D + d]!
          p[j] = dot * scale + bias(b, h, i, j)
        }
        const top = Math.max(...p)
        if (top === Number.NEGATIVE_INFINITY) continue // no key: zeros everywhere
        let sum = 0
        for (let j = 0; j < S; j++) sum += p[j] = Math.exp(p[j]! - top)
        const dp = new Float64Array(S)
        let mean = 0
        for (let j = 0; j < S; j++) {
          p[j]! /= sum
          weights[row * S + j] = p[j]!
          received[(b * H + h) * S + j]! += p[j]!
          if (p[j]! > 0) entropy[row]! -= p[j]! * Math.log(p[j]!)
          for (let e = 0; e < E; e++) {
            out[row * E + e]! += p[j]! * v[(kv * S + j) * E + e]!
            dp[j]! += g[row * E + e]! * v[(kv * S + j) * E + e]!
            dv[(kv * S + j) * E + e]! += p[j]! * g[row * E + e]!
          }
          mean += p[j]! * dp[j]!
        }
        for (let j = 0; j < S; j++) {
          const ds = p[j]! * (dp[j]! - mean) * scale
          for (let d = 0; d < D; d++) {
            dq[row * D + d]! += ds * k[(kv * S + j) * D + d]!
            dk[(kv * S + j) * D + d]! += ds * q[row * D + d]!
          }
        }
      }
    }
  }
  return result
}
