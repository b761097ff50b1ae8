package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxCommand is how many bytes of a port's holder's command line are shown.
const maxCommand = 80

// checkPorts tries each port and names, of all that are taken, the holder and
// the variable that moves the port.
func checkPorts(ctx context.Context, ports []*port) error {
	var errs []error
	for _, p := range ports {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", p.address())
		if err == nil {
			err = l.Close()
		}
		switch {
		case err == nil:
		case errors.Is(err, syscall.EADDRINUSE):
			errs = append(errs, fmt.Errorf("port %d, for %s, is taken by %s: stop that, or choose another port with make run %s=…",
				p.number, p.what, holder(p.number), p.variable))
		default:
			errs = append(errs, fmt.Errorf("port %d, for %s: %w; %s=… chooses another", p.number, p.what, err, p.variable))
		}
	}
	return errors.Join(errs...)
}

// holder describes the process that listens on a TCP port, as far as /proc
// tells.
func holder(port int) string {
	inode := listening(port)
	if inode == "" {
		return "another process"
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "another process"
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(fd, "/")[2]
		command, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil {
			return "process " + pid
		}
		text := strings.TrimSpace(strings.ReplaceAll(string(command), "\x00", " "))
		if len(text) > maxCommand {
			text = text[:maxCommand] + "…"
		}
		return fmt.Sprintf("process %s (%s)", pid, text)
	}
	return "another user's process"
}

// listening returns the inode of the socket that listens on port, or "".
func listening(port int) string {
	const state, listen = 3, "0A"
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue // no such protocol, or no /proc
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[state] != listen {
				continue
			}
			_, hex, _ := strings.Cut(fields[1], ":")
			if n, err := strconv.ParseUint(hex, 16, 16); err == nil && int(n) == port {
				return fields[9]
			}
		}
	}
	return ""
}
