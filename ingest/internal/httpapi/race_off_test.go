//go:build !race

package httpapi

// raceDetector tells whether the tests run under it.
const raceDetector = false
