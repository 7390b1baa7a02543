// Package config keeps the contexts of the command: which brokers its user works with, under names. It reads and writes two files:
// config.yaml, which may be written by hand and kept under version control, holds the contexts; state.yaml says which one is current,
// so that choosing another one doesn't touch the first file. No password is in either: they hold references, see [Secret].
package config

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// File is the content of config.yaml.
type File struct {
	Contexts map[string]Context `yaml:"contexts"`

	comments comments
}

// Context is a broker with a name. Its YAML names stay as they are.
type Context struct {
	Description    string `yaml:"description,omitempty"`
	Broker         string `yaml:"broker"`                    // URL; its password is in Password
	Password       Secret `yaml:"password,omitempty"`        // of the user in Broker
	ConnectTimeout string `yaml:"connect-timeout,omitempty"` // a duration such as 5s; empty: the command's
}

// State is the content of state.yaml.
type State struct {
	Current  string `yaml:"current"`
	Previous string `yaml:"previous,omitempty"`
}

// Names returns the names of the contexts in order.
func (f *File) Names() []string {
	names := make([]string, 0, len(f.Contexts))
	for n := range f.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Remove deletes a context, with the comments that belong to it.
func (f *File) Remove(name string) {
	delete(f.Contexts, name)
	f.comments.remove(name)
}

var name = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// CheckName returns an error unless s can name a context.
func CheckName(s string) error {
	if !name.MatchString(s) {
		return fmt.Errorf("context %q: a name is letters, digits and . _ -, and begins with none of . and -", s)
	}
	return nil
}

// Check returns the first thing that is wrong with c, and the field it is in, by its YAML name. Whether the URL is one of a broker is
// for the caller to check.
func (c *Context) Check() (field string, err error) {
	if c.Broker == "" {
		return "broker", fmt.Errorf("no broker: it is a URL such as amqp://localhost:5672/ or kafka://localhost:9092")
	}
	u, err := url.Parse(c.Broker)
	if err != nil { // which quotes it, and perhaps a password
		return "broker", fmt.Errorf("not a URL: special characters in the user's name are written %%XX (/ is %%2F, @ is %%40)")
	}
	if err := plain(u); err != nil {
		return "broker", err
	}
	if c.Password != "" {
		if err := c.Password.Check(); err != nil {
			return "password", err
		}
		if u.User.Username() == "" {
			return "password", fmt.Errorf("whose? write the user into the URL: %s://USER@%s", u.Scheme, u.Host)
		}
	}
	if c.ConnectTimeout != "" {
		if d, err := time.ParseDuration(c.ConnectTimeout); err != nil || d <= 0 {
			return "connect-timeout", fmt.Errorf("%q is not a positive duration such as 10s or 1m30s", c.ConnectTimeout)
		}
	}
	return "", nil
}

// PlainPasswordError says that a URL has a password, which is no business of a file. Bare is the URL without it.
type PlainPasswordError struct{ Bare string }

func (e *PlainPasswordError) Error() string {
	return "the URL has a password, which is not kept in a file: leave it out, as in " + e.Bare + ", and say where it is with password: env:NAME or file:PATH"
}

// plain refuses passwords in a URL and in the URLs that are its parameters. guest:guest is RabbitMQ's public default, no secret.
func plain(u *url.URL) error {
	q := u.Query()
	found := hasPassword(u)
	bare := *u
	bare.User = withoutPassword(u.User)
	for k, vs := range q {
		for i, v := range vs {
			inner, err := url.Parse(v)
			if err != nil && strings.Contains(v, "@") {
				return &PlainPasswordError{Bare: "one without the parameter " + k}
			}
			if err == nil && hasPassword(inner) {
				// Without a login the parameter's server gets the broker's.
				inner.User = nil
				vs[i], found = inner.String(), true
			}
		}
	}
	if !found {
		return nil
	}
	if u.RawQuery != "" {
		bare.RawQuery = q.Encode()
	}
	return &PlainPasswordError{Bare: bare.String()}
}

func hasPassword(u *url.URL) bool {
	p, ok := u.User.Password()
	return ok && p != "" && u.User.String() != "guest:guest"
}

func withoutPassword(u *url.Userinfo) *url.Userinfo {
	if u == nil || u.Username() == "" {
		return nil
	}
	return url.User(u.Username())
}

// URL returns the broker's URL with the password that c refers to.
func (c *Context) URL(look Lookup) (string, error) {
	if c.Password == "" {
		return c.Broker, nil
	}
	password, err := c.Password.Resolve(look)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(c.Broker)
	if err != nil {
		return "", err
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String(), nil
}

// Redact returns a URL with xxxxx in place of its password, and of those in the URLs that are its parameters. What isn't quite a URL may
// have a password all the same.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || strings.Contains(u.Path+u.Fragment, "@") {
		return hide(raw)
	}
	q, changed := u.Query(), false
	for k, vs := range q {
		if strings.Contains(k, "@") {
			return hide(raw)
		}
		for i, v := range vs {
			vs[i] = Redact(v)
			changed = changed || vs[i] != v
		}
	}
	if changed {
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// hide puts xxxxx between the colon behind the user's name, if one is there, and the last @: a slash, a question mark or a # in a password
// ends what url.Parse takes for it.
func hide(raw string) string {
	from := 0
	if i := strings.Index(raw, "://"); i >= 0 {
		from = i + len("://")
	}
	colon, at := strings.IndexAny(raw[from:], ":@/"), strings.LastIndex(raw, "@")
	if colon < 0 || raw[from+colon] != ':' || at < from+colon {
		return raw
	}
	return raw[:from+colon] + ":xxxxx" + raw[at:]
}
