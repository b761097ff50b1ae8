//go:build !race

package crash

// stride: every pair is tried.
const stride = 1
