package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// place puts the load and the programs where the configuration has them.
func (s *stack) place(cfg config) error {
	if cfg.nice != 0 {
		if err := threads(os.Getpid(), func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, cfg.nice) }); err != nil {
			return fmt.Errorf("--nice %d: %w", cfg.nice, err)
		}
	}
	if !cfg.split {
		return nil
	}
	last := runtime.NumCPU() - 1
	if last == 0 {
		return errors.New("--split: there is one processor")
	}
	var load, rest unix.CPUSet
	load.Set(last)
	for cpu := range last {
		rest.Set(cpu)
	}
	err := threads(os.Getpid(), func(tid int) error { return unix.SchedSetaffinity(tid, &load) })
	for _, p := range s.programs {
		err = errors.Join(err, threads(p.cmd.Process.Pid, func(tid int) error { return unix.SchedSetaffinity(tid, &rest) }))
	}
	if err != nil {
		return fmt.Errorf("--split: %w", err)
	}
	return nil
}

// threads calls do for each thread of a process; those that come later are as the
// one that begins them is. One that has ended meanwhile is no error.
func threads(pid int, do func(tid int) error) error {
	tasks, err := os.ReadDir(filepath.Join("/proc", strconv.Itoa(pid), "task"))
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := do(tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}
