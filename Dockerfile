# The command in an image of its own, with nothing else in it:
#
#   docker build -t stagebus . && docker run --rm stagebus help
#
# The build stage is another image with Go in it on --build-arg GO_IMAGE=...
ARG GO_IMAGE=golang:1.26-alpine

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# Without cgo it needs no library of the image's; go.work names a module that isn't copied.
RUN --mount=type=cache,target=/root/.cache/go-build CGO_ENABLED=0 GOWORK=off go build -trimpath -ldflags=-s -o /out/stagebus ./cmd/stagebus
# What the demo trains on, where it looks for Go's own sources.
RUN install -D -m 644 "$(go env GOROOT)/src/testdata/Isaac.Newton-Opticks.txt" /out/go/src/testdata/Isaac.Newton-Opticks.txt

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/stagebus /
COPY --from=build /out/go /go
ENV GOROOT=/go
USER 65532:65532
ENTRYPOINT ["/stagebus"]
