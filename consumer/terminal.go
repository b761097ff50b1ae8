package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// asks tells whether there is a person at a terminal to be asked. Where there is
// none, what was ordered is taken for meant.
func (t *tools) asks() bool { return term.IsTerminal(int(os.Stdin.Fd())) && t.terminal() }

// confirm asks the person at the terminal, if there is one.
func (t *tools) confirm(question string) bool {
	if !t.asks() {
		return true
	}
	fmt.Fprintf(t.err, "%s [y/N] ", question)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}

func (t *tools) terminal() bool {
	file, ok := t.err.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// progress is a bar over so many records, with their rate and the time that
// remains, drawn only on a terminal.
func (t *tools) progress(n int64, what string) *progressbar.ProgressBar {
	return progressbar.NewOptions64(n,
		progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(t.err),
		progressbar.OptionSetVisibility(t.terminal()), progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetItsString("records"), progressbar.OptionClearOnFinish())
}

func count[T any](all []T, n func(T) int) int {
	sum := 0
	for _, x := range all {
		sum += n(x)
	}
	return sum
}
