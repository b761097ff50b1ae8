package apache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
)

// leastJava is the oldest Java that Kafka 4's broker runs on.
const leastJava = 17

const javaHint = "Apache Kafka needs Java 17 or newer: install it (Debian: apt-get install openjdk-17-jre-headless), or set JAVA_HOME"

// findJava returns the java of JAVA_HOME, else of the PATH, if it is new enough.
func findJava(ctx context.Context) (string, error) {
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	path, err := exec.LookPath(java)
	if err != nil {
		return "", fmt.Errorf("%s: %w", javaHint, err)
	}
	out, err := exec.CommandContext(ctx, path, "-version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %s -version: %w\n%s", javaHint, path, err, out)
	}
	major, err := javaMajor(string(out))
	if err != nil {
		return "", fmt.Errorf("%s: %s: %w", javaHint, path, err)
	}
	if major < leastJava {
		return "", fmt.Errorf("%s: %s is Java %d", javaHint, path, major)
	}
	return path, nil
}

var versionOf = regexp.MustCompile(`version "(?:1\.)?(\d+)`)

// javaMajor reads the release out of what "java -version" says: 17 of
// "17.0.15", 8 of "1.8.0_412".
func javaMajor(text string) (int, error) {
	m := versionOf.FindStringSubmatch(text)
	if m == nil {
		return 0, errors.New("java -version names no version")
	}
	return strconv.Atoi(m[1])
}
