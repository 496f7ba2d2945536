"""SignalDetector: an abnormal beat is found at its place, false alarms are few, bad series are refused."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from altered import altered, examples
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from diabolo import Autoencoder
from diabolo.applications import AnomalyDetector, SignalDetector
from diabolo.applications.signals import _apart, cut, window_starts
from diabolo.errors import CalibrationWarning, InvalidDataError, InvalidParameterError, ModelFileError
from diabolo.persistence import SIGNALS, read_model, write_model

BEAT = 40  # steps from beat to beat
ABNORMAL = 22  # number of the beat that comes early and broad


def beats(seed: int, n_beats: int = 150, abnormal: int | None = None) -> np.ndarray:
    """Return a series of narrow peaks, each with a wave after it, in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_beats * BEAT, dtype=float)
    series = 0.05 * rng.normal(size=len(t))
    for k in range(n_beats):
        middle = (k + 0.5) * BEAT + rng.normal()
        if k == abnormal:
            series -= 0.8 * np.exp(-0.5 * ((t - middle + 8) / 5) ** 2)
        else:
            series += np.exp(-0.5 * ((t - middle) / 1.5) ** 2) + 0.3 * np.exp(
                -0.5 * ((t - middle - 10) / 3) ** 2
            )
    return series


def detector(**settings: object) -> AnomalyDetector:
    """Return one that is fitted in a second."""
    small = Autoencoder(
        hidden_dims=(64,), latent_dim=12, epochs=15, validation_fraction=0.0, corruption="gaussian:0.2"
    )
    return AnomalyDetector(estimator=small, trim=0.0, random_state=0, **settings)


@pytest.fixture(scope="module")
def fitted() -> SignalDetector:
    return SignalDetector(detector=detector(false_alarm_rate=0.02), window=BEAT, step=8).fit(beats(0))


class TestSeries:
    def test_the_abnormal_beat_is_found_at_its_place(self, fitted):
        series = beats(1, abnormal=ABNORMAL)
        start, stop = ABNORMAL * BEAT, (ABNORMAL + 1) * BEAT
        steps = fitted.score_steps(series)
        assert steps.shape == series.shape
        assert start <= np.argmin(steps) < stop
        lowest = fitted.starts(len(series))[np.argmin(fitted.score_samples(series))]
        assert start - BEAT < lowest < stop
        flagged = np.flatnonzero(fitted.predict_steps(series) == -1)
        inside = (flagged >= start - BEAT // 2) & (flagged < stop + BEAT // 2)
        assert np.isin(np.arange(start + 10, stop - 15), flagged).all()
        assert inside.mean() > 0.5

    def test_fresh_normal_series_raise_few_alarms(self, fitted):
        alarms = [(fitted.predict(beats(seed)) == -1).mean() for seed in range(10, 18)]
        assert np.mean(alarms) < 0.05  # 0.02 promised; windows of one series depend on each other
        fitted.set_threshold(false_alarm_rate=0.3)
        many = np.mean([(fitted.predict(beats(seed)) == -1).mean() for seed in range(10, 18)])
        fitted.set_threshold(false_alarm_rate=0.02)
        assert 0.2 < many < 0.4

    def test_parts_average_to_the_windows_surprise(self, fitted):
        series = beats(2, n_beats=1)  # one window
        assert fitted.explain(series).mean() == pytest.approx(-fitted.score_samples(series)[0])
        assert fitted.score_steps(series).mean() == pytest.approx(fitted.score_samples(series)[0])

    def test_steps_are_the_mean_of_their_windows(self, fitted):
        series = beats(3, n_beats=3)
        windows, starts = cut(series, BEAT, 8)
        parts = fitted.detector_.explain(windows[:, 0]) * BEAT
        for t in (0, 5, 57, len(series) - 1):
            held = [
                part[t - start] for part, start in zip(parts, starts, strict=True) if 0 <= t - start < BEAT
            ]
            assert fitted.explain(series)[t] == pytest.approx(np.mean(held))

    def test_channels(self):
        both = np.stack([beats(0), beats(1)])
        model = SignalDetector(detector=detector(), window=BEAT, step=8).fit(both)
        fresh = np.stack([beats(2), beats(3, abnormal=ABNORMAL)])
        parts = model.explain(fresh)
        assert parts.shape == fresh.shape
        channel, step = np.unravel_index(np.argmax(parts), parts.shape)
        assert channel == 1
        assert ABNORMAL * BEAT <= step < (ABNORMAL + 1) * BEAT
        np.testing.assert_allclose(model.score_steps(fresh), -parts.mean(0))
        assert model.p_value(fresh).min() > 0
        with pytest.raises(InvalidDataError, match=r"2 channel\(s\).*got 1"):
            model.predict(beats(0))

    def test_the_same_seed_gives_the_same_bytes(self, fitted):
        again = SignalDetector(detector=detector(false_alarm_rate=0.02), window=BEAT, step=8).fit(beats(0))
        assert again.score_steps(beats(4)).tobytes() == fitted.score_steps(beats(4)).tobytes()
        assert again.detector_.threshold_ == fitted.detector_.threshold_

    def test_rows_are_held_out_once(self, fitted):
        """The threshold is that of the stretches, whose windows the members have not seen, and no others."""
        series = beats(0)
        windows, starts = cut(series, BEAT, 8)
        training, held_out = _apart(starts, BEAT, 0.2)
        judged = fitted.detector_
        assert len(judged.members_) == 1
        known = np.sort(-judged.score_samples(windows[held_out, 0]))
        np.testing.assert_array_equal(judged.calibration_.scores, known)
        offset = judged.members[0].estimator._mean
        np.testing.assert_allclose(offset, windows[training, 0].mean(0), rtol=1e-9)
        short = SignalDetector(detector=detector(calibration_fraction=0.1), window=BEAT, step=8).fit(series)
        assert len(short.detector_.calibration_.scores) == pytest.approx(len(known) / 2, abs=5)

    def test_one_warning_that_tells_how_many_windows_are_held_out(self):
        with pytest.warns(CalibrationWarning, match="by 30 held-out rows") as said:
            model = SignalDetector(detector=detector(false_alarm_rate=0.01), window=BEAT, step=8).fit(
                beats(0, 30)
            )
        assert len(said) == 1
        assert len(model.detector_.members_) == 1

    def test_windows_side_by_side_share_no_step_with_those_held_out(self):
        series = beats(0)
        models = [
            SignalDetector(detector=detector(false_alarm_rate=0.2), window=BEAT, step=BEAT).fit(series[:n])
            for n in (len(series), len(series) - 3, len(series) - BEAT)
        ]
        whole, short, even = (model.detector_.calibration_.scores for model in models)
        assert len(whole) == 150  # each held out once
        assert np.array_equal(short, even)  # a last window that begins within the one before is left out
        assert len(models[1].score_samples(series[:-3])) == 150

    def test_windows_set_apart_go_by_their_numbers(self):
        series = beats(0)
        series[60 * BEAT : 62 * BEAT] += 5 * np.random.default_rng(0).normal(size=2 * BEAT)
        trimming = detector().set_params(trim=0.03)
        model = SignalDetector(detector=trimming, window=BEAT, step=8).fit(series)
        apart = model.starts(len(series))[model.detector_.set_apart_]
        spoiled = (apart > 59 * BEAT) & (apart < 62 * BEAT)
        assert spoiled.sum() >= 10
        assert spoiled.mean() > 0.5

    def test_the_detector_given_stays_unfitted(self):
        given = detector()
        SignalDetector(detector=given, window=BEAT, step=BEAT).fit(beats(0))
        assert not hasattr(given, "threshold_")


class TestGivenWindows:
    def test_a_step_of_a_beat_is_found(self):
        rows = beats(0).reshape(-1, BEAT)
        model = SignalDetector(detector=detector()).fit(rows)
        fresh = beats(1, n_beats=30, abnormal=ABNORMAL).reshape(-1, BEAT)
        assert np.argmin(model.score_samples(fresh)) == ABNORMAL
        steps = model.score_steps(fresh)
        assert steps.shape == fresh.shape
        row, step = np.unravel_index(np.argmin(steps), steps.shape)
        assert row == ABNORMAL
        assert 4 <= step <= 28  # where the early beat is, or the usual one should be
        with pytest.raises(InvalidParameterError, match="predict_steps needs a series"):
            model.predict_steps(fresh)

    def test_channels_of_windows(self):
        rows = np.stack([beats(0, 60).reshape(-1, BEAT), beats(1, 60).reshape(-1, BEAT)], axis=1)
        model = SignalDetector(detector=detector(false_alarm_rate=0.05)).fit(rows)
        assert model.score_steps(rows).shape == (60, BEAT)
        assert model.explain(rows).shape == rows.shape


class TestWindows:
    def test_every_step_is_in_a_window(self):
        for n, window, step in ((100, 10, 4), (10, 10, 3), (11, 10, 10), (57, 8, 8)):
            starts = window_starts(n, window, step)
            held = np.zeros(n, dtype=int)
            for start in starts:
                held[start : start + window] += 1
            assert held.min() >= 1
            assert starts[-1] == n - window
            assert (np.diff(starts) > 0).all()

    def test_cut_by_hand(self):
        windows, starts = cut(np.arange(7), 3, 2)
        assert starts.tolist() == [0, 2, 4]
        assert windows[:, 0].tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6]]
        assert cut(np.arange(20), 8)[1].tolist() == [0, 2, 4, 6, 8, 10, 12]

    @pytest.mark.parametrize(("n", "window", "step"), [(2000, 50, 1), (3000, 40, 8), (5000, 30, 29)])
    def test_windows_held_out_share_nothing_with_those_trained_on(self, n, window, step):
        starts = window_starts(n, window, step)
        training, held_out = _apart(starts, window, 0.2)
        assert np.abs(starts[training][:, None] - starts[held_out][None]).min() >= window
        assert len(held_out) / len(starts) == pytest.approx(0.2, abs=0.03)
        assert held_out[0] < len(starts) // 5  # spread over the whole
        assert held_out[-1] > len(starts) * 4 // 5


class TestRefusals:
    def test_series(self, fitted):
        bad = beats(0)
        bad[17] = np.nan
        with pytest.raises(InvalidDataError, match="series must be finite; got NaN at step 17"):
            fitted.predict(bad)
        both = np.stack([beats(0), beats(0)])
        both[1, 5] = np.inf
        with pytest.raises(InvalidDataError, match="got inf at channel 1, step 5"):
            cut(both, 10)
        with pytest.raises(InvalidDataError, match="at least one window long, 40 steps; got 39"):
            fitted.score_samples(beats(0)[:39])
        with pytest.raises(InvalidDataError, match=r"at least one window long.*several channels come as"):
            fitted.score_samples(beats(0)[:, None])
        with pytest.raises(InvalidDataError, match="series must be numbers"):
            fitted.score_samples(np.array(["a", "b"], dtype=object))
        for wrong in (
            ["a", "b"],
            ["1", "2"],
            beats(0) + 0j,
            beats(0).astype("M8[s]"),
            beats(0).astype("m8[s]"),
        ):
            with pytest.raises(
                InvalidDataError, match=r"series must be real numbers; got the type .* two channels"
            ):
                fitted.score_samples(wrong)
        with pytest.raises(InvalidDataError, match="series must have no masked values"):
            fitted.score_samples(np.ma.masked_greater(beats(0), 0.9))
        with pytest.raises(InvalidDataError, match=r"series must be a dense array; .* X.toarray"):
            fitted.score_samples(sparse.csr_array(beats(0)[None]))
        for several in ([beats(0), beats(0, 20)], [beats(0), both]):
            with pytest.raises(
                InvalidDataError, match=r"got parts of different shapes\. To learn from several"
            ):
                fitted.score_samples(several)
        with pytest.raises(NotFittedError):
            SignalDetector(window=BEAT).score_samples(beats(0))
        with pytest.raises(InvalidDataError, match="must have the shape"):
            fitted.score_samples(np.zeros((2, 3, 4)))
        with pytest.raises(InvalidDataError, match="long enough to hold out 5 stretches"):
            SignalDetector(window=BEAT, step=1).fit(beats(0, n_beats=6))

    def test_windows(self):
        rows = beats(0, 30).reshape(-1, BEAT)
        rows[3, 2] = np.nan
        with pytest.raises(InvalidDataError, match="windows must be finite; got NaN at window 3, step 2"):
            SignalDetector().fit(rows)
        with pytest.raises(InvalidDataError, match="windows must have the shape"):
            SignalDetector().fit(beats(0))

    def test_settings(self):
        with pytest.raises(InvalidParameterError, match="step must be at most window, 10"):
            SignalDetector(window=10, step=11).fit(beats(0))
        with pytest.raises(InvalidParameterError, match="step must be None where X holds windows"):
            SignalDetector(step=2).fit(beats(0).reshape(-1, BEAT))
        with pytest.raises(InvalidParameterError, match="window"):
            SignalDetector(window=1).fit(beats(0))
        with pytest.raises(InvalidParameterError, match="detector must be an AnomalyDetector"):
            SignalDetector(detector="knn", window=10).fit(beats(0))


class TestFiles:
    def test_what_is_loaded_scores_byte_for_byte(self, fitted, tmp_path):
        series = beats(1, abnormal=ABNORMAL)
        before = fitted.detector_.threshold_
        path = fitted.set_threshold(false_alarm_rate=0.1).save(tmp_path / "s.safetensors")
        loaded = SignalDetector.load(path)
        assert loaded.detector_.threshold_ == fitted.detector_.threshold_ != before
        fitted.set_threshold(value=before)
        assert loaded.score_steps(series).tobytes() == fitted.score_steps(series).tobytes()
        assert (loaded.window, loaded.step) == (fitted.window, fitted.step)
        again = clone(loaded).fit(beats(0))  # with the settings of the first
        assert again.score_samples(series).tobytes() == fitted.score_samples(series).tobytes()

    def test_windows(self, tmp_path):
        windows = beats(0).reshape(-1, 2, BEAT // 2)
        fitted = SignalDetector(detector=detector()).fit(windows)
        loaded = SignalDetector.load(fitted.save(tmp_path / "s.safetensors"))
        assert loaded.explain(windows).tobytes() == fitted.explain(windows).tobytes()
        assert loaded.window is None
        assert loaded.n_channels_ == 2

    def test_other_files_are_told(self, fitted, tmp_path):
        rows = fitted.detector_.save(tmp_path / "rows.safetensors")
        with pytest.raises(ModelFileError, match="signal detector file"):
            SignalDetector.load(rows)
        with pytest.raises(ModelFileError, match="detector file"):
            AnomalyDetector.load(fitted.save(tmp_path / "s.safetensors"))
        with pytest.raises(NotFittedError):
            SignalDetector(window=BEAT).save(tmp_path / "none.safetensors")

    def test_a_window_set_after_fit_is_in_no_file(self, fitted, tmp_path):
        other = copy.deepcopy(fitted).set_params(window=BEAT + 1)
        with pytest.raises(
            InvalidParameterError, match=f"window must be that of fit, {BEAT}; got {BEAT + 1}"
        ):
            other.save(tmp_path / "s.safetensors")

    @pytest.mark.parametrize("window", [None, BEAT, float(BEAT), np.int64(BEAT)])
    @pytest.mark.parametrize("step", [None, 5, np.int64(5), BEAT, 500, 0, True, 2.5, "x"])
    def test_what_is_written_can_be_read(self, fitted, tmp_path, window, step):
        path = tmp_path / "s.safetensors"
        other = copy.deepcopy(fitted).set_params(window=window, step=step)
        good = step is None if window is None else step in (None, 5, BEAT) and not isinstance(window, float)
        if good:
            loaded = SignalDetector.load(other.save(path))
            assert (loaded.window, loaded.step) == (window, step)
            return
        with pytest.raises(InvalidParameterError, match=r"(step|window) must be"):
            other.save(path)
        assert not path.exists()

    @examples(40)
    @given(data=st.data())
    def test_altered_headers(self, fitted, tmp_path, data):
        """Whatever stands in the part about the series, it is loaded as it is or refused in words."""
        header, tensors = read_model(fitted.save(tmp_path / "s.safetensors"), SIGNALS)
        header["signal"] = altered(header["signal"], data)
        path = write_model(tmp_path / "altered.safetensors", header, tensors, SIGNALS)
        try:
            loaded = SignalDetector.load(path)
        except ModelFileError:
            return
        assert len(loaded.score_samples(beats(1))) > 0

    def test_progress(self):
        seen = []
        SignalDetector(detector=detector(), window=BEAT).fit(
            beats(0, 60), progress=lambda share, what: seen.append(share)
        )
        assert seen[0] == 0
        assert seen[-1] == 1
        assert seen == sorted(seen)
