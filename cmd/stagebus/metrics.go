package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// serveMetrics begins to serve what --metrics asks for, once. It ends with stopMetrics.
func (p *program) serveMetrics() error {
	if p.metrics == "" || p.server != nil {
		return nil
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		p.meter.Collector(),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return err
		}
	}
	listener, err := net.Listen("tcp", p.metrics)
	if err != nil {
		err = fmt.Errorf("--metrics %s: %w; choose another address, such as localhost:0", p.metrics, err)
		if _, ok := errors.AsType[*net.AddrError](err); ok {
			err = &usageError{err}
		}
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	p.notef("metrics at http://%s/metrics", listener.Addr())
	go func(s *http.Server) { // ends with stopMetrics
		if err := s.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			p.warnf("metrics are not served any more: %v", err)
		}
	}(p.server)
	return nil
}

// stopMetrics lets a scrape that is under way finish.
func (p *program) stopMetrics() {
	if p.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := p.server.Shutdown(ctx); err != nil {
		_ = p.server.Close() // it has been told; the process ends
	}
}
