"""What each test of a suite came to, one line each in the file that SUITE_OUTCOMES names: passed, failed or skipped; its name;
the reason, if it has failed. A plugin for pytest, and a runner for Django."""

import os
import unittest

FILE = os.environ["SUITE_OUTCOMES"]


def tell(outcome, name, reason=""):
    words = [" ".join(str(word).split()) for word in (name, reason)]
    with open(FILE, "a", encoding="utf-8") as file:
        file.write("\t".join([outcome, words[0], words[1][:400]]) + "\n")


SEEN = {}


def pytest_runtest_logreport(report):
    if report.outcome != "passed" or report.when == "call":
        earlier = SEEN.get(report.nodeid, ("passed", ""))
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = crash.message if crash else str(report.longrepr or "")[-400:]
        SEEN[report.nodeid] = earlier if earlier[0] == "failed" else (report.outcome, reason)
    if report.when == "teardown":
        tell(SEEN[report.nodeid][0], report.nodeid, SEEN.pop(report.nodeid)[1])


class Result(unittest.TextTestResult):
    """A test with subtests has failed once, whichever of them have."""

    def startTest(self, test):
        super().startTest(test)
        self.came_to = ("passed", "")

    def stopTest(self, test):
        super().stopTest(test)
        outcome, reason = self.came_to
        tell(outcome, test.id(), reason)

    def note(self, test, outcome, reason):
        if hasattr(self, "came_to") and getattr(test, "_testMethodName", None):
            if self.came_to[0] != "failed":
                self.came_to = (outcome, reason)
        else:
            tell(outcome, str(test), reason)

    def addError(self, test, err):
        super().addError(test, err)
        self.note(test, "failed", f"{err[0].__name__}: {err[1]}")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note(test, "failed", f"{err[0].__name__}: {err[1]}")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note(test, "failed", f"{err[0].__name__}: {err[1]}")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note(test, "skipped", "expected to fail")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note(test, "failed", "it was expected to fail")


def runner():
    """The class for Django's TEST_RUNNER."""
    from django.test.runner import DiscoverRunner

    class Runner(DiscoverRunner):
        def get_resultclass(self):
            return Result

    return Runner


def __getattr__(name):
    if name == "Runner":
        return runner()
    raise AttributeError(name)
