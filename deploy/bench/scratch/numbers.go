package scratch

import (
	"fmt"
	"strconv"
)

// Numbers reads what make hands down in the environment: each variable that is set
// and not empty replaces the number it stands for.
func Numbers(getenv func(string) string, into map[string]*int) error {
	for name, number := range into {
		text := getenv(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%s=%s: want a number", name, text)
		}
		*number = n
	}
	return nil
}
