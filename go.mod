module github.com/stagebus/stagebus

go 1.26.0
