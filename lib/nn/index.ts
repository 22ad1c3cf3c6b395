// Public names of modules.

export * from './module'
