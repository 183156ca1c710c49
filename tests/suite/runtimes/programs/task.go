package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	switch os.Args[1] {
	case "hello":
		fmt.Println("hello")
	case "thread":
		done := make(chan string)
		go func() { done <- "thread" }()
		fmt.Println(<-done)
	case "subprocess":
		out, err := exec.Command("echo", "child").Output()
		check(err)
		fmt.Print(string(out))
	case "resolve":
		name, err := os.Hostname()
		check(err)
		addresses, err := net.LookupHost(name)
		check(err)
		fmt.Println(addresses[0])
	case "memory":
		var taken [][]byte
		for {
			block := make([]byte, 1<<20)
			for i := range block {
				block[i] = 1
			}
			taken = append(taken, block)
		}
	}
}
