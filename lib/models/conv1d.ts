// GPT-2's linear map.

import { Linear } from '../nn/linear'
import type { Tensor } from '../tensor/tensor'

/** A `Linear` whose weight stands transposed, [inFeatures, outFeatures], in state dicts: GPT-2's files have it so. */
export class Conv1D extends Linear {
  stateLayout(name: string, tensor: Tensor): Tensor {
    return name === 'weight' ? tensor.t() : tensor
  }
}
