// Public names of reports.

export { type ChartOptions, chartFile, lineChart, type Series, smooth } from './chart'
export { htmlReport, lossChart, type StepRecord, type TrainingHistory } from './report'
