// What the library has under `cuda`.

export * from '../tensor/cuda'
export * as nccl from './nccl'
