// Reads logfmt files with go-logfmt, and fails at the first line that it cannot read, that lacks a key of every line, or that has
// a key twice.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"

	"github.com/go-logfmt/logfmt"
)

func check(line []byte) error {
	decoder := logfmt.NewDecoder(bytes.NewReader(line))
	values := map[string]string{}
	for decoder.ScanRecord() {
		for decoder.ScanKeyval() {
			key := string(decoder.Key())
			if _, twice := values[key]; twice {
				return fmt.Errorf("the key %s occurs twice", key)
			}
			values[key] = string(decoder.Value())
		}
	}
	if err := decoder.Err(); err != nil {
		return err
	}
	for _, key := range []string{"level", "time", "msg", "module"} {
		if _, found := values[key]; !found {
			return fmt.Errorf("the key %s is missing", key)
		}
	}
	return nil
}

func main() {
	lines := 0
	for _, name := range os.Args[1:] {
		file, err := os.Open(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		scanner := bufio.NewScanner(file)
		for number := 1; scanner.Scan(); number++ {
			if err := check(scanner.Bytes()); err != nil {
				fmt.Fprintf(os.Stderr, "%s:%d: %v: %s\n", name, number, err, scanner.Text())
				os.Exit(1)
			}
			lines++
		}
		if err := scanner.Err(); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		}
	}
	fmt.Printf("    %d lines of logfmt\n", lines)
}
