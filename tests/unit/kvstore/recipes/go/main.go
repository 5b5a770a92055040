// Go's side of the tests of recipes: what etcd's own packages do with a name, as often as told.
//
// recipes ENDPOINTS WHAT NAME COUNT
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	recipe "go.etcd.io/etcd/client/v3/experimental/recipes"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	endpoints, what, name := strings.Split(os.Args[1], ","), os.Args[2], os.Args[3]
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	client, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	check(err)
	defer client.Close()
	session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	check(err)
	defer session.Close()
	for turn := 0; turn < count; turn++ {
		check(once(client, session, what, name, turn))
	}
}

func once(client *clientv3.Client, session *concurrency.Session, what, name string, turn int) error {
	item := fmt.Sprintf("go.%d", turn)
	switch what {
	case "put":
		return recipe.NewQueue(client, name).Enqueue(item)
	case "get":
		return show(recipe.NewQueue(client, name).Dequeue())
	case "urge":
		return recipe.NewPriorityQueue(client, name).Enqueue(item, uint16(turn%3))
	case "urgent":
		return show(recipe.NewPriorityQueue(client, name).Dequeue())
	case "hold":
		return recipe.NewBarrier(client, name).Hold()
	case "release":
		return recipe.NewBarrier(client, name).Release()
	case "wait":
		return recipe.NewBarrier(client, name).Wait()
	case "meet":
		return meet(session, name)
	case "add":
		_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
			number, _ := strconv.Atoi(stm.Get(name))
			stm.Put(name, strconv.Itoa(number+1))
			return nil
		})
		return err
	case "lock":
		return step(session, name)
	}
	return fmt.Errorf("no such thing: %s", what)
}

func show(item string, err error) error {
	fmt.Println(item)
	return err
}

func meet(session *concurrency.Session, name string) error {
	barrier := recipe.NewDoubleBarrier(session, name, 2)
	if err := barrier.Enter(); err != nil {
		return err
	}
	fmt.Println("began")
	if err := barrier.Leave(); err != nil {
		return err
	}
	fmt.Println("ended")
	return nil
}

// One step of the number in the file of the lock's name, read and written apart.
func step(session *concurrency.Session, name string) error {
	mutex := concurrency.NewMutex(session, name)
	if err := mutex.Lock(context.Background()); err != nil {
		return err
	}
	text, err := os.ReadFile(os.Args[5])
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	time.Sleep(20 * time.Millisecond)
	if err := os.WriteFile(os.Args[5], []byte(strconv.Itoa(number+1)), 0o600); err != nil {
		return err
	}
	return mutex.Unlock(context.Background())
}
