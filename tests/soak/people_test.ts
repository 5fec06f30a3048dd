import { CASES, isSlowOnJs, testPeople } from "../engine/people.ts";

testPeople("js", CASES.filter(isSlowOnJs));
