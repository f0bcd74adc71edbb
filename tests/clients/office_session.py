"""LibreOffice without a screen on a document that is stored on a WebDAV server. Arguments: the directory's address, user,
password, a local directory."""

import base64
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import uno
import unohelper
from com.sun.star.beans import PropertyValue
from com.sun.star.connection import NoConnectException
from com.sun.star.task import XInteractionHandler
from com.sun.star.ucb import XInteractionSupplyAuthentication

folder, user, password, local = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])
url = folder + "letter.odt"


def must(condition, reason):
    if not condition:
        sys.exit(reason)


class Answers(unohelper.Base, XInteractionHandler):
    """Gives user and password where they are asked for, and approves of nothing else."""

    def handle(self, question):
        for answer in question.getContinuations():
            supply = answer.queryInterface(uno.getTypeByName("com.sun.star.ucb.XInteractionSupplyAuthentication"))
            if supply:
                supply.setUserName(user)
                supply.setPassword(password)
                supply.select()
                return
        for answer in question.getContinuations():
            abort = answer.queryInterface(uno.getTypeByName("com.sun.star.task.XInteractionAbort"))
            if abort:
                abort.select()
                return


def properties(**values):
    return tuple(PropertyValue(name, 0, value, 0) for name, value in values.items())


def ask(method, headers=None, body=None):
    """One request of somebody else's: status and body."""
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    one = urllib.request.Request(url, body, {"Authorization": f"Basic {pair}", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(one, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


def connect(pipe):
    resolver = uno.getComponentContext().ServiceManager.createInstance("com.sun.star.bridge.UnoUrlResolver")
    for _ in range(600):
        try:
            return resolver.resolve(f"uno:pipe,name={pipe};urp;StarOffice.ComponentContext")
        except NoConnectException:
            time.sleep(0.1)
    sys.exit("LibreOffice does not come up")


def work(context):
    manager = context.ServiceManager
    desktop = manager.createInstanceWithContext("com.sun.star.frame.Desktop", context)
    asked = properties(Hidden=True, InteractionHandler=Answers())
    fresh = desktop.loadComponentFromURL("private:factory/swriter", "_blank", 0, properties(Hidden=True))
    fresh.Text.String = "first words"
    fresh.storeAsURL(url, properties(InteractionHandler=Answers(), FilterName="writer8"))
    fresh.close(True)
    first = ask("GET")[1]
    must(first[:2] == b"PK", "the document was not saved on the server")

    document = desktop.loadComponentFromURL(url, "_blank", 0, asked)
    must(document is not None, "the document cannot be opened")
    must(document.Text.String == "first words" and not document.isReadonly(), "it opens differently, or read-only")
    status, _ = ask("PUT", body=b"of somebody else")
    must(status == 423, f"while it is open, somebody else's PUT is answered with {status}: it is not locked")
    document.Text.String = "second words"
    document.store()
    document.close(True)
    second = ask("GET")[1]
    must(second[:2] == b"PK" and second != first, "the change was not saved")
    status, _ = ask("PUT", body=second)
    must(status == 204, f"once it is closed, a PUT is answered with {status}: the lock stays")

    again = desktop.loadComponentFromURL(url, "_blank", 0, asked)
    must(again.Text.String == "second words", "the change is not in the document")
    again.close(True)
    desktop.terminate()


pipe = f"patgate-{os.getpid()}"
office = subprocess.Popen(["soffice", f"-env:UserInstallation=file://{local}/office", "--headless", "--norestore", "--nologo",
                           "--nodefault", f"--accept=pipe,name={pipe};urp;"], stdout=sys.stderr, stdin=subprocess.DEVNULL)
try:
    work(connect(pipe))
    office.wait(20)
finally:
    office.kill()
print("saved, opened, locked, changed, unlocked")
