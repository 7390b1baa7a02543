module github.com/stagebus/stagebus/integration

go 1.26

require github.com/stagebus/stagebus v0.0.0

replace github.com/stagebus/stagebus => ../
