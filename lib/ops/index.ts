// All operators. Importing a family also gives Tensor its methods.

export * from './pointwise'
export * from './shape'
export * from './split'
