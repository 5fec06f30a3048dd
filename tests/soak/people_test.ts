import { CASES, isSlowOnJs, testPeople, testPeopleOnGpu } from "../engine/people.ts";
import { ignoreWithoutAdapter } from "../kernels/adapter.ts";

testPeople("js", CASES.filter(isSlowOnJs));
testPeopleOnGpu(CASES, await ignoreWithoutAdapter("soak/people_test.ts"));
