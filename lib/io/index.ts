// Files: weights and training checkpoints.

export {
  type CheckpointParts,
  type LoadedCheckpoint,
  latestCheckpoint,
  loadCheckpoint,
  type SaveCheckpointOptions,
  type Stateful,
  saveCheckpoint,
} from './checkpoint'
export { type LoadFileOptions, loadFile, type NamedTensors, SafetensorsFile, safeOpen, saveFile } from './safetensors'
