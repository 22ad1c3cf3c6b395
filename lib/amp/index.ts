// Public names of mixed precision.

export * from './autocast'
