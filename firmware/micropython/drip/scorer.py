"""Scoring frames on the board, without a card and without a host."""

from array import array

from drip import native

# What the core answers, by the names of docs/SPEC.md.
POLICY_KIND, THRESHOLD, RANDOM_SHARE, EVERY_K, TARGET = 2, 3, 4, 6, 12


class Error(Exception):
    """The core refused something; `code` is a number of enum err in docs/SPEC.md."""

    def __init__(self, what, code):
        super().__init__(what + " (error " + str(code) + ")")
        self.code = code


def check(what, code):
    """Return a result of the core, or raise Error."""
    if code < 0:
        raise Error(what, code)
    return code


def load(model):
    """Return a model, a path or bytes, as a buffer that the core can run in place."""
    if not isinstance(model, str):
        return model
    with open(model, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        blob = bytearray(size)
        if stream.readinto(blob) != size:
            raise OSError("cannot read " + model)
    return blob


def names_of(blob, offset, size):
    """Return the class names of a section CLASSES."""
    names = []
    end = offset + size
    while offset < end and blob[offset]:
        names.append(bytes(blob[offset + 1 : offset + 1 + blob[offset]]).decode())
        offset += 1 + blob[offset]
    return names


class Result:
    """What the core thinks of one frame. The next score() writes over it."""

    def __init__(self, labels):
        self.labels = labels
        self.words = array("i", [0] * 9)

    @property
    def label(self):
        """Name of the predicted class, or its number where the model has no names."""
        number = self.words[2]
        return self.labels[number] if number < len(self.labels) else number

    @property
    def score(self):
        """Importance, 0..65535: the share of calibration frames that mattered less, x 65536."""
        return self.words[1]

    @property
    def keep(self):
        """Whether the frame is worth keeping."""
        return self.words[6] != 0

    @property
    def raw(self):
        """Score before calibration; its unit depends on the kind of score."""
        return self.words[0]

    @property
    def class_1(self):
        """Number of the predicted class."""
        return self.words[2]

    @property
    def class_2(self):
        """Number of the runner-up."""
        return self.words[3]

    @property
    def logit_1(self):
        """Logit of the predicted class, -128..127."""
        return self.words[4]

    @property
    def logit_2(self):
        """Logit of the runner-up."""
        return self.words[5]

    @property
    def reason(self):
        """Why it is kept, bits of enum reason; 0 = it is not."""
        return self.words[6]


class Scorer:
    """A model, its score and the rule that decides.

    `model`: path of a .drip file, or a buffer with one at a multiple of 16, which must stay as it
    is. `kind`: a number of enum score_kind; 0 = what the model is calibrated for.
    """

    def __init__(self, model, kind=0, seed=1):
        self._blob = load(model)
        self._state = bytearray(native.state_bytes(0))
        self._arena = bytearray(check("model refused", native.scorer_open(self._state, self._blob)))
        size = native.scorer_bind(self._state, self._arena, None, kind, seed)
        self._scratch = bytearray(max(4, check("no such score", size)))
        check(
            "no such score",
            native.scorer_bind(self._state, self._arena, self._scratch, kind, seed),
        )
        about = array("I", [0] * 5)
        check("model refused", native.scorer_about(self._state, about))
        self.frame_bytes = about[0]
        self.labels = names_of(self._blob, about[2], about[3])
        self._pixels = about[4]
        self._map = None
        self.result = Result(self.labels)
        self._words = self.result.words

    def score(self, frame):
        """Score a frame of `frame_bytes` bytes as captured. Allocates nothing.

        Returns the Result, the same object every time.
        """
        code = native.score(self._state, frame, self._words)
        if code < 0:
            raise Error("frame refused", code)
        return self.result

    def cam(self, class_index=-1, minus=-1):
        """Return the Grad-CAM of the last frame: array of one number per position, row by row.

        `class_index` -1 = the predicted class; `minus`: a class to subtract. The next cam()
        writes over the array.
        """
        if self._map is None:
            self._map = array("i", [0] * max(1, self._pixels))
        if class_index < 0:
            class_index = self._words[2]
        check("no Grad-CAM", native.cam(self._state, class_index, minus, self._map))
        return self._map

    def config(self, key, value):
        """Change a setting of the rule: a key of enum config in docs/SPEC.md."""
        check("setting refused", native.scorer_config(self._state, key, value))
