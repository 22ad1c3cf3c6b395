// Gives the simulator three devices, when it is imported before anything that opens one.
process.env.CUDASIM_DEVICES = '3'
