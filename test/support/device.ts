// Runs a test file on another device: what names none is made on GRADUS_TEST_DEVICE. `npm run test:cuda` sets it.
import { type DeviceName, setDefaultDevice } from '../../lib/index'

const wanted = process.env.GRADUS_TEST_DEVICE
if (wanted !== undefined) setDefaultDevice(wanted as DeviceName)
