package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"
)

// patience bounds how long a broker may take to come up. The first one on a machine is also installed in that time.
const patience = 10 * time.Minute

// errNone says that this machine has no way to a broker: a test is skipped for it. Any other error fails the test, so that
// a broken set-up does not pass for a green one.
var errNone = errors.New("broker: none to be had: set STAGEBUS_TEST_AMQP_URL and STAGEBUS_TEST_KAFKA_URL, or run Docker, or use Debian")

var shared struct {
	sync.Mutex
	brokers map[Kind]*Broker
	errs    map[Kind]error
	ends    []*Instance
}

// Require returns the broker of that kind that the tests of this process share, and starts it if it is the first to ask.
// It skips the test when there is no way to a broker, and with -short unless the environment names one; it fails the test
// when the broker does not come up. The same answer is given to all later callers.
//
// Natively the broker is the one that `integration/brokers up` starts: it goes on running, for the next time, until
// `integration/brokers down`. In Docker it ends with [Main], or by testcontainers' reaper.
func Require(t testing.TB, k Kind) *Broker {
	t.Helper()
	if testing.Short() && os.Getenv(variables[k][0]) == "" {
		t.Skipf("needs %s: not with -short", k)
	}
	b, err := require(k)
	check(t, err)
	return b
}

func require(k Kind) (*Broker, error) {
	shared.Lock()
	defer shared.Unlock()
	if b, err := shared.brokers[k], shared.errs[k]; b != nil || err != nil {
		return b, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	b, err := fromEnvironment(ctx, k)
	if b == nil && err == nil {
		err = each(func(w Way) error {
			if w == Native {
				b, err = nativeUp(ctx, sharedName, k)
				return err
			}
			i, err := startDocker(ctx, k)
			if err == nil {
				b = &i.Broker
				shared.ends = append(shared.ends, i)
			}
			return err
		})
	}
	if err == nil {
		err = warm(ctx, b)
	}
	if err != nil {
		b = nil
	}
	if shared.brokers == nil {
		shared.brokers, shared.errs = map[Kind]*Broker{}, map[Kind]error{}
	}
	shared.brokers[k], shared.errs[k] = b, err
	return b, err
}

// Private starts a broker that only this test uses, and may break. It ends with the test. The environment's brokers are
// never private: beside them Docker or the script is used all the same. Require tells when the test is skipped or fails.
func Private(t testing.TB, k Kind) *Instance {
	t.Helper()
	if testing.Short() {
		t.Skipf("needs a private %s: not with -short", k)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	i, err := start(ctx, k)
	check(t, err)
	t.Cleanup(func() {
		// t's context has ended by now.
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := i.end(ctx); err != nil {
			t.Errorf("end %v: %v", i, err)
		}
	})
	return i
}

func check(t testing.TB, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errNone):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// Main runs a package's tests and then ends the containers that Require started for them. For TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(broker.Main(m)) }
func Main(m *testing.M) int {
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	shared.Lock()
	defer shared.Unlock()
	for _, i := range shared.ends {
		if err := i.end(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "end %v: %v\n", i, err)
			code = max(code, 1)
		}
	}
	return code
}

// Up is Require for the run of a command: it starts what the environment does not name and returns the variables, as
// NAME=VALUE, that make Require in the command's processes find it. Call down when the command has ended, whatever err
// is. Without any way to a broker, err is nil and missing says why.
func Up(ctx context.Context) (env []string, down func(context.Context) error, missing, err error) {
	var mu sync.Mutex
	var started []*Instance
	var wg sync.WaitGroup
	for k := range variables {
		wg.Go(func() {
			b, e := fromEnvironment(ctx, k)
			if b == nil && e == nil {
				var i *Instance
				if i, e = start(ctx, k); e == nil {
					b = &i.Broker
					mu.Lock()
					started = append(started, i)
					mu.Unlock()
				}
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(e, errNone):
				missing = e
			case e != nil:
				err = errors.Join(err, e)
			default:
				env = append(env, b.environ()...)
			}
		})
	}
	wg.Wait()
	down = func(ctx context.Context) error {
		var err error
		for _, i := range started {
			err = errors.Join(err, i.end(ctx))
		}
		return err
	}
	return env, down, missing, err
}
