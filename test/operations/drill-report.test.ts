import t from 'tap'
import { drillWords, longestGap } from '../../src/operations/drill-report.js'

t.test('the longest time between two acknowledgements', async t => {
  t.equal(longestGap([]), 0)
  t.equal(longestGap([5]), 0)
  t.equal(longestGap([0, 10, 20.4, 931.6, 940]), 911)
})

t.test('in words', async t => {
  const report = { writesRefusedMs: 812, acknowledged: 1234, lost: 0, uncertain: 0, complete: true }
  t.equal(drillWords(report), 'Writes were refused for 812 ms; 1234 rows were acknowledged, none of them is lost.')
  t.match(drillWords({ ...report, lost: 1 }), /1 of them is lost\.$/)
  t.match(drillWords({ ...report, lost: 3, uncertain: 2 }), /3 of them are lost; of 2 nobody said\.$/)
  t.match(drillWords({ ...report, complete: false }), /A worker died meanwhile: this is of the part after that\.$/)
})
