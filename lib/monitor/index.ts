// Public names of what watches a run.

export * from './report/index'
