package amqp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/stagebus/stagebus"
)

// managedQueue is what the management API says of a queue. Its numbers are some seconds old.
type managedQueue struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Messages  int64  `json:"messages"`
	Consumers int    `json:"consumers"`
	Exclusive bool   `json:"exclusive"`
}

const (
	managementTimeout = 3 * time.Second
	managementMax     = 64 << 20 // bytes of an answer, some hundred thousand queues
)

// managedQueues lists the queues of the virtual host.
func (c *config) managedQueues(ctx context.Context) ([]managedQueue, error) {
	ctx, cancel := context.WithTimeout(ctx, managementTimeout)
	defer cancel()
	u, err := url.Parse(c.Management)
	if err != nil {
		return nil, errNoManagement // New has parsed it
	}
	user := u.User
	u.User = nil
	if user == nil {
		user = url.UserPassword(c.User, c.Password)
	}
	fail := func(kind, cause error, do string) ([]managedQueue, error) {
		return nil, &stagebus.Error{Op: "list", Broker: u.Scheme + "://" + u.Host, Kind: kind, Cause: cause, Do: do}
	}
	u = u.JoinPath("api", "queues", url.PathEscape(c.Vhost))
	u.RawQuery = "columns=name,type,messages,consumers,exclusive"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fail(stagebus.ErrInvalid, err, "")
	}
	password, _ := user.Password()
	request.SetBasicAuth(user.Username(), password)
	transport := &http.Transport{Proxy: nil, DisableKeepAlives: true}
	if u.Scheme == "https" && c.TLS != nil {
		transport.TLSClientConfig = c.TLS.Clone()
	}
	const enable = "enable it with: rabbitmq-plugins enable rabbitmq_management, or say in the URL where it is (?management=http://host:15672)"
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // without the URL
		}
		return fail(stagebus.ErrUnavailable, err, enable)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, managementMax+1))
	_ = response.Body.Close() // it was read
	status := fmt.Errorf("the management API answered %s", response.Status)
	switch {
	case err != nil:
		return fail(stagebus.ErrUnavailable, err, enable)
	case response.StatusCode == http.StatusUnauthorized, response.StatusCode == http.StatusForbidden:
		return fail(stagebus.ErrAuth, status, "give the user the tag management: rabbitmqctl set_user_tags USER management")
	case response.StatusCode != http.StatusOK:
		return fail(stagebus.ErrUnavailable, status, enable)
	case len(body) > managementMax:
		return fail(stagebus.ErrTooLarge, errNoManagement, "the virtual host has too many queues to list")
	}
	var queues []managedQueue
	if err := json.Unmarshal(body, &queues); err != nil {
		return fail(stagebus.ErrUnavailable, err, enable)
	}
	return queues, nil
}

// groupOf returns the group whose queue has that name, if it is one of topic.
func groupOf(queue, topic string) (string, bool) {
	if queue == topic {
		return stagebus.DefaultGroup, true
	}
	group, ok := strings.CutPrefix(queue, topic+"--")
	if !ok || group == "" || strings.Contains(group, "--") || stagebus.CheckGroup(group) != nil {
		return "", false
	}
	return group, true
}

// topic returns what a queue is in our terms: a topic and one of its groups. Queues that are a means (retry queues, private ones) are none.
func (q managedQueue) topic() (name, group string, ok bool) {
	if q.Exclusive || strings.HasPrefix(q.Name, "amq.") || q.Name == "" {
		return "", "", false
	}
	if stagebus.CheckTopic(q.Name) == nil && !strings.HasPrefix(q.Name, "queue:") && !strings.HasPrefix(q.Name, "topic:") {
		if i := strings.LastIndex(q.Name, "--"); i >= 0 && strings.HasPrefix(q.Name[i:], "--retry-") {
			return "", "", false
		}
		return q.Name, stagebus.DefaultGroup, true
	}
	if i := strings.LastIndex(q.Name, "--"); i > 0 {
		name, group = q.Name[:i], q.Name[i+2:]
		if stagebus.CheckTopic(name) == nil && group != "" && stagebus.CheckGroup(group) == nil {
			return name, group, true
		}
	}
	return "queue:" + q.Name, stagebus.DefaultGroup, true
}
