// Which layers of a model are recomputed in backward instead of stored.

import { expectSaveOps, type SaveOps } from '../autograd/checkpoint'
import { ArgumentError, describeValue, StateError } from '../errors'
import { expectFunction, readOptions } from '../options'
import { ModuleList, Sequential } from './containers'
import { Module } from './module'

/** Options of `gradientCheckpointing`. */
export interface GradientCheckpointingOptions {
  /** Checkpoints the layers 0, every, 2 every, … of each list. Default 1: all. */
  every?: number
  /** Operations whose results are stored nevertheless, as in `autograd.selectiveCheckpoint`. Default none. */
  save?: SaveOps
  /** Says of each module below whether to checkpoint it, by its path, in place of the lists. */
  layers?: (path: string, module: Module) => boolean
}

declare module './module' {
  interface Module {
    /** Checkpoints layers while the model trains: their activations are computed again in backward instead of stored,
     *  and gradients stay equal to the bit. Layers are the members of the outermost `ModuleList`s (the blocks of a
     *  transformer), unless `layers` chooses others. A later call replaces the choice; `false` ends it. Returns the
     *  module.
     *  @throws StateError when no layer is found; ArgumentError when `every` is not a whole number of at least 1, or
     *  `save` names an operation that does not exist
     *  @see https://huggingface.co/docs/transformers/main_classes/model#transformers.PreTrainedModel.gradient_checkpointing_enable
     *  @example model.gradientCheckpointing({ every: 2 }).isGradientCheckpointing // true */
    gradientCheckpointing(options?: GradientCheckpointingOptions | false): this
    /** Whether a layer of the model is checkpointed. */
    readonly isGradientCheckpointing: boolean
  }
}

/** The members of the outermost lists. A Sequential is one when it is the whole model; further down it is rather a part
 *  of a layer. */
function listed(module: Module, depth = 0): Module[][] {
  const isList = module instanceof ModuleList && (depth === 0 || !(module instanceof Sequential))
  return isList ? [module.children()] : module.children().flatMap((child) => listed(child, depth + 1))
}

function choose(module: Module, { every = 1, layers }: GradientCheckpointingOptions): Module[] {
  const op = 'gradientCheckpointing'
  if (!Number.isInteger(every) || every < 1) {
    throw new ArgumentError(op, {
      problem: 'every is out of range',
      got: describeValue(every),
      expected: 'a whole number of at least 1',
    })
  }
  if (layers !== undefined) expectFunction(op, layers)
  const lists =
    layers === undefined
      ? listed(module)
      : [
          module
            .namedModules()
            .filter(([path, each]) => path !== '' && layers(path, each))
            .map(([, each]) => each),
        ]
  const chosen = lists.flatMap((list) => list.filter((_, i) => i % every === 0))
  if (chosen.length > 0) return chosen
  throw new StateError(op, {
    problem: layers === undefined ? `${module.constructor.name} has no ModuleList of layers` : 'no layer was chosen',
    action: 'pass { layers: (path, module) => ... }, or call autograd.checkpoint in forward',
  })
}

Module.prototype.gradientCheckpointing = function (this: Module, options: GradientCheckpointingOptions | false = {}) {
  const chosen =
    options === false ? [] : choose(this, readOptions('gradientCheckpointing', options, ['every', 'save', 'layers']))
  const save = options === false ? null : (options.save ?? null)
  if (save !== null) expectSaveOps('gradientCheckpointing', save)
  for (const each of this.modules()) each._checkpointing = null
  for (const each of chosen) each._checkpointing = { save }
  return this
}

Object.defineProperty(Module.prototype, 'isGradientCheckpointing', {
  configurable: true,
  get(this: Module): boolean {
    return this.modules().some((module) => module._checkpointing !== null)
  },
})
