// Command fake stands for each of the four programs in the supervisor's tests,
// by the name it is called under. It writes down in $FAKE_DIR/events that it
// starts and stops, answers where the real one would, and fails when a file
// NAME.fail is there.
package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	name := filepath.Base(os.Args[0])
	if len(os.Args) > 1 && name == "consumer" {
		name = os.Args[1] // topics, migrate
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if exists(name + ".deaf") {
		signal.Ignore(syscall.SIGTERM)
	}
	note("start", name)
	if exists(name + ".fail") {
		fmt.Fprintln(os.Stderr, "the reason")
		os.Exit(3)
	}
	if name == "topics" || name == "migrate" {
		return
	}
	port := flag.String("port", "", "")
	listen := flag.String("listen", os.Getenv("SLUICE_ADMIN_ADDRESS"), "")
	withStdin := flag.Bool("exit-with-stdin", false, "")
	for _, other := range []string{"data", "library", "sync-writes"} {
		flag.String(other, "", "")
	}
	flag.Parse()
	if *port != "" {
		*listen = "127.0.0.1:" + *port
	}
	go func() {
		fmt.Fprintln(os.Stderr, http.ListenAndServe(*listen, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if exists(name + ".unready") {
				http.Error(w, "not yet", http.StatusServiceUnavailable)
			}
		})))
		os.Exit(1)
	}()
	if *withStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			stop <- syscall.SIGTERM
		}()
	}
	<-stop
	note("stop", name)
}

func exists(file string) bool {
	_, err := os.Stat(filepath.Join(os.Getenv("FAKE_DIR"), file))
	return err == nil
}

func note(what, name string) {
	f, err := os.OpenFile(filepath.Join(os.Getenv("FAKE_DIR"), "events"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer f.Close()
	env := ""
	for _, kv := range os.Environ() {
		if strings.HasPrefix(kv, "SLUICE_GROUP") {
			env += " " + kv
		}
	}
	fmt.Fprintf(f, "%s %s %d%s\n", what, name, os.Getpid(), env)
}
