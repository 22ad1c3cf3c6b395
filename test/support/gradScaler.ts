// A GradScaler in use, for its tests.
import { amp, nn, optim, type Tensor, tensor } from '../../lib/index'

/** A parameter with a gradient. */
export const weights = (values: number[], grad: number[] | null = null): Tensor => {
  const param = nn.parameter(tensor(values))
  if (grad !== null) param.grad = tensor(grad)
  return param
}

/** A scaler in use, with a parameter whose gradient is `grad` times the scale. */
export function started(grad: number[], options: amp.GradScalerOptions = { initScale: 4 }) {
  const scaler = new amp.GradScaler(options)
  scaler.scale(tensor(1))
  const param = weights(grad.map(() => 1))
  param.grad = tensor(grad).mul(scaler.getScaleSync())
  const optimizer = new optim.SGD([param], { lr: 1 })
  return { scaler, param, optimizer }
}
