// Files: weights and training checkpoints.

export { loadFile, type NamedTensors, SafetensorsFile, safeOpen, saveFile } from './safetensors'
