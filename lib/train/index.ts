// Public names of training loops.

export {
  type LanguageModelConfig,
  type LanguageModelObserver,
  type LanguageModelOptions,
  type LanguageModelResult,
  trainLanguageModel,
} from './languageModel'
export type { PaceOptions } from './pace'
export { readText } from './text'
