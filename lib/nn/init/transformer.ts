// The initialization that transformers are published with.

import { ArgumentError, describeValue } from '../../errors'
import type { Tensor } from '../../tensor/tensor'
import { expectFinite } from '../arguments'
import { MultiheadAttention } from '../attention'
import { Embedding } from '../embedding'
import { Linear } from '../linear'
import { appliedTensors, Module } from '../module'
import { LayerNorm, RMSNorm } from '../norm'
import { normal_, ones_, zeros_ } from './basic'

/** Weights of Linear and Embedding N(0, std²), biases 0, norms 1 and 0, the padding row 0. Takes a whole model, or one
 *  module at a time by `model.apply(nn.init.transformer)`; tied weights are drawn once.
 *  @see Radford et al. 2019 (GPT-2); Devlin et al. 2018, arXiv:1810.04805, appendix A.2
 *  @example model.apply((module) => nn.init.transformer(module, 0.02)) */
export function transformer(module: Module, std = 0.02): void {
  if (!(module instanceof Module)) {
    throw new ArgumentError('init.transformer', { problem: 'not a module', got: describeValue(module) })
  }
  if (expectFinite('init.transformer', 'std', std) < 0) {
    throw new ArgumentError('init.transformer', { problem: 'std is negative', got: String(std) })
  }
  const walk = appliedTensors()
  const drawn = walk ?? new Set<Tensor>()
  for (const each of walk === null ? module.modules() : [module]) initOne(each, std, drawn)
}

function initOne(module: Module, std: number, drawn: Set<Tensor>): void {
  const draw = (weight: Tensor): void => {
    if (drawn.has(weight)) return
    drawn.add(weight)
    normal_(weight, 0, std)
  }
  if (module instanceof Linear) {
    draw(module.weight)
    if (module.bias !== null) zeros_(module.bias)
  } else if (module instanceof MultiheadAttention) {
    draw(module.in_proj_weight)
    if (module.in_proj_bias !== null) zeros_(module.in_proj_bias)
  } else if (module instanceof Embedding) {
    draw(module.weight)
    module.zeroPaddingRow()
  } else if (module instanceof LayerNorm || module instanceof RMSNorm) {
    if (module.weight !== null) ones_(module.weight)
    if (module instanceof LayerNorm && module.bias !== null) zeros_(module.bias)
  }
}
