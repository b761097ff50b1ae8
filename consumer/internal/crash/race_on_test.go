//go:build race

package crash

// stride: under the race detector, which slows them eightfold, only one pair of so
// many is tried, at random.
const stride = 8
