// Public names of modules.

export * from './module'
export * as utils from './utils'
